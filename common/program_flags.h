#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/config.h"

namespace bellwether {

// What the flags of all programs share. Included by each main alone, as CLI11 is slow to compile.

// Adds --config and --print-config, and makes the last of several values win (see LayeredArguments).
inline void AddConfigFlags(CLI::App* app, bool* print_config) {
  app->add_option("--config", "File of lines \"flag = value\"; flags and BELLWETHER_* variables win over it")
      ->configurable(false);
  app->add_flag("--print-config", *print_config,
                "Print the settings in force, in the format of --config, and end")
      ->configurable(false);
  app->set_help_flag("--help,-h", "Print this and end");
  for (CLI::Option* option : app->get_options())
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

// Parses flags, variables and the file. Returns -1 to go on, else the exit status: --help and --print-config
// have been printed, or the error has.
inline int ParseFlags(int argc, char** argv, const bool& print_config, CLI::App* app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_configurable())
      names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
  }
  auto layered = LayeredArguments({argv + 1, argv + argc}, names);
  if (!layered.ok()) {
    std::fprintf(stderr, "%s\n", std::string(layered.status().message()).c_str());
    return 2;
  }
  std::reverse(layered->begin(), layered->end());  // as CLI11 wants it
  try {
    app->parse(*std::move(layered));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      std::fputs(app->help().c_str(), stdout);
      return 0;
    }
    std::fprintf(stderr, "%s\nRun with --help for what there is.\n", error.what());
    return 2;
  }
  if (!print_config) return -1;
  std::fputs(app->config_to_str(/*default_also=*/true).c_str(), stdout);
  return 0;
}

}  // namespace bellwether
