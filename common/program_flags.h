#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/config.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/output.h"
#include "common/parse_bytes.h"
#include "common/step_tokens.h"

namespace bellwether {

// What the flags of all programs share. Included by each main and by the tool's flags alone, as CLI11 is slow
// to compile.

// The settings of `app`, those of its option groups too.
inline std::vector<CLI::Option*> Settings(CLI::App* app) {
  std::vector<CLI::Option*> settings;
  for (CLI::Option* option : app->get_options()) {
    if (option->get_configurable() && !option->get_lnames().empty()) settings.push_back(option);
  }
  for (CLI::App* group : app->get_subcommands([](CLI::App* sub) { return sub->get_name().empty(); })) {
    for (CLI::Option* option : Settings(group)) settings.push_back(option);
  }
  return settings;
}

// Of the flags that take any number of the type T with a fraction: CLI11 takes "nan" and "inf", too.
template <typename T>
CLI::Validator FiniteNumber() {
  const auto check = [](const std::string& text) {
    double value = 0;
    const bool ok = absl::SimpleAtod(text, &value) && std::isfinite(static_cast<T>(value));
    return ok ? std::string() : absl::StrCat("Value ", text, " is no number");
  };
  return {check, ""};
}
// Of those with a range, where CLI::Range takes NaN too.
inline CLI::Validator FloatRange(double least, double most) {
  const auto check = [least, most](const std::string& text) {
    double value = 0;
    const bool ok = absl::SimpleAtod(text, &value) && value >= least && value <= most;
    return ok ? std::string() : absl::StrCat("Value ", text, " not in range ", least, " to ", most);
  };
  return {check, absl::StrCat("FLOAT in [", least, " - ", most, "]")};
}
// Of those that take a time: 0 to a day.
inline CLI::Validator SecondsRange() { return FloatRange(0, 86400); }

// Of the flags that take an address. Empty stands for none, where `empty` allows it.
struct AddressRules {
  bool any_port = false;  // 0: a listener takes a free one
  bool empty = false;
};
inline CLI::Validator Address(AddressRules rules) {
  const auto check = [rules](const std::string& text) {
    if (text.empty() && rules.empty) return std::string();
    return std::string(ParseHostPort(text, rules.any_port).status().message());
  };
  return {check, "HOST:PORT"};
}

// Of those that take names with commas between them; empty where none is given.
inline CLI::Validator NameList() {
  const auto check = [](const std::string& text) {
    for (const absl::string_view name : absl::StrSplit(text, ',')) {
      if (absl::StripAsciiWhitespace(name).empty() && !text.empty())
        return absl::StrCat("Value ", text, " has an empty name in it");
    }
    return std::string();
  };
  return {check, "NAMES"};
}

// Of the flags that take a whole number of the type T, which CLI11 would wrap around. `instead` says what to
// do for what people may have meant.
template <typename T>
CLI::Validator WholeNumber(const std::string& instead = "") {
  const auto check = [instead](const std::string& text) {
    T value = 0;
    if (absl::SimpleAtoi(text, &value)) return std::string();
    using Limits = std::numeric_limits<T>;
    return absl::StrCat("Value ", text, " is no whole number from ", Limits::min(), " to ", Limits::max(),
                        instead.empty() ? "" : ": ", instead);
  };
  return {check, ""};
}
// A secret: no setting that is shown or kept.
inline constexpr char kApiKeyFlag[] = "--api-key";
inline constexpr char kRandomSeedAdvice[] = "leave it out for a random one";

// A flag with its default shown. All programs add theirs by this, so that what a flag takes is the same.
template <typename T>
CLI::Option* AddFlag(CLI::App* app, const std::string& name, T& value, const std::string& help) {
  CLI::Option* option = app->add_option(name, value, help)->capture_default_str();
  if constexpr (std::is_integral_v<T>) option->check(WholeNumber<T>());
  return option;
}

// How much memory to plan with, in two spellings of which one is given; 0: what is available.
inline void AddMemoryFlags(CLI::App* app, int64_t& bytes, const std::string& help) {
  constexpr int64_t kMibMax = int64_t{1} << 30;
  CLI::Option* memory = app->add_option_function<std::string>(
      "--memory",
      [&bytes](const std::string& text) {
        bytes = static_cast<int64_t>(ParseBytes(text, /*least=*/0).value_or(0));
      },
      absl::StrCat(help, ", such as 8GB or 8GiB (default: what is available)"));
  memory->check(
      [](const std::string& text) { return std::string(ParseBytes(text, /*least=*/0).status().message()); });
  app->add_option_function<int64_t>(
         "--memory-mib", [&bytes](int64_t mib) { bytes = mib << 20; }, "The same in MiB")
      ->check(WholeNumber<int64_t>())
      ->check(CLI::Range(int64_t{0}, kMibMax))
      ->excludes(memory);
}

inline void AddStepTokensFlag(CLI::App* app, std::string& tokens) {
  AddFlag(
      app, "--step-tokens", tokens,
      "Tokens of a step, at most: a number, or auto: where layers are streamed, as many as arithmetic does "
      "in the time that drives take")
      ->check([](const std::string& text) { return std::string(ParseStepTokens(text).status().message()); });
}

inline void AddLogFlags(CLI::App* app, LogOptions* options) {
  app->add_option("--log-level", options->level, "Lines of lower rank are left out")
      ->capture_default_str()
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app->add_option("--log-format", options->format,
                  "text, or json: an object a line, for whoever collects logs")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "json"}));
}
// Adds --config and --print-config, and makes the last of several values win where there is one value.
inline void AddConfigFlags(CLI::App* app, bool* print_config) {
  app->add_option("--config",
                  "File of lines \"flag = value\"; flags and their variables BELLWETHER_FLAG win over it")
      ->configurable(false);
  app->add_flag("--print-config", *print_config,
                "Print the settings in force, in the format of --config, and end")
      ->configurable(false);
  app->set_help_flag("--help,-h", "Print this and end");
  for (CLI::Option* option : Settings(app)) {
    if (option->get_items_expected_max() == 1 &&
        option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw) {
      option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    }
  }
}

// `version` makes what is printed: what a report of a fault should say of the program.
inline void AddVersionFlag(CLI::App* app, std::function<std::string()> version) {
  app->set_version_flag("--version", std::move(version), "Print what the program was built from and end");
}

// Those that are not set and have no default are shown without a value.
inline std::string SettingsText(const std::vector<CLI::Option*>& settings) {
  std::string text;
  for (const CLI::Option* option : settings) {
    const bool list = option->get_items_expected_max() > 1;
    std::vector<std::string> values = option->results();
    if (option->count() == 0) values = {list ? std::string() : option->get_default_str()};
    if (option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeLast) values = {values.back()};
    for (const std::string& value : values) {
      const std::string& name = option->get_lnames().front();
      if ("--" + name == kApiKeyFlag) continue;
      const bool none = option->count() == 0 && value.empty();
      text += none ? name + " = \n" : ConfigLine(name, value);
    }
  }
  return text;
}

// Writes what was asked for; the exit status.
inline int PrintAndEnd(const std::string& text) {
  const absl::Status written = WriteOutput(text);
  if (!written.ok()) std::fprintf(stderr, "%s\n", std::string(written.message()).c_str());
  return written.ok() ? 0 : 1;
}

// Puts the name before a positional argument of `command`, so that it ranks as the flag does.
inline void NamePositional(const CLI::App& command, std::vector<std::string>* arguments) {
  const auto positionals =
      command.get_options([](const CLI::Option* option) { return option->get_positional(); });
  if (positionals.empty()) return;
  for (size_t i = 0; i < arguments->size(); ++i) {
    const std::string& argument = (*arguments)[i];
    if (!argument.starts_with("-")) {
      arguments->insert(arguments->begin() + i, "--" + positionals.front()->get_lnames().front());
      return;
    }
    const size_t equals = argument.find('=');
    const CLI::Option* flag = command.get_option_no_throw(argument.substr(0, equals));
    if (flag == positionals.front()) return;  // CLI11 refuses both
    if (flag != nullptr && equals == std::string::npos) i += flag->get_items_expected_min();  // its value
  }
}

// Of the flags that several programs have.
inline Displacements SharedDisplacements() {
  return {{"layout", {"tensor-parallel", "pipeline-parallel"}},
          {"tensor-parallel", {"layout"}},
          {"pipeline-parallel", {"layout"}},
          {"model", {"model-root"}},
          {"model-root", {"model"}},
          {"memory", {"memory-mib"}},
          {"memory-mib", {"memory"}}};
}

// Parses flags, variables and the file; of a program with subcommands, those of the one that the first
// argument names. Returns -1 to go on, else the exit status: --help, --version and --print-config have been
// printed, or the error has.
inline int ParseFlags(int argc, char** argv, const bool& print_config, CLI::App* app,
                      const Displacements& displacements = SharedDisplacements()) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto is_named = [&](CLI::App* sub) {
    return !arguments.empty() && !sub->get_name().empty() && sub->get_name() == arguments[0];
  };
  const std::vector<CLI::App*> commands = app->get_subcommands(is_named);
  std::vector<CLI::Option*> settings;
  if (!commands.empty() || app->get_require_subcommand_min() == 0) {
    settings = Settings(commands.empty() ? app : commands.front());
    std::vector<std::string> names;
    names.reserve(settings.size());
    for (const CLI::Option* option : settings) names.push_back(option->get_lnames().front());
    const size_t first = commands.empty() ? 0 : 1;
    std::vector<std::string> given(arguments.begin() + first, arguments.end());
    NamePositional(commands.empty() ? *app : *commands.front(), &given);
    const auto layered = LayeredArguments(given, names, displacements);
    if (!layered.ok()) {
      std::fprintf(stderr, "%s\n", std::string(layered.status().message()).c_str());
      return 2;
    }
    arguments.resize(first);
    arguments.insert(arguments.end(), layered->begin(), layered->end());
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants it
  try {
    app->parse(std::move(arguments));
  } catch (const CLI::CallForVersion& version) {
    return PrintAndEnd(version.what());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return PrintAndEnd(app->help());
    // CLI11 says first what is missing, though it may be what these are a slip of.
    if (app->remaining_size(/*recurse=*/true) > 0) {  // "--" is none
      std::fprintf(stderr, "Arguments that were not expected: %s\nRun with --help for what there is.\n",
                   absl::StrJoin(app->remaining(/*recurse=*/true), " ").c_str());
      return 2;
    }
    // Settings may be incomplete where they are only looked at.
    if (!print_config || error.get_exit_code() != static_cast<int>(CLI::ExitCodes::RequiredError)) {
      std::fprintf(stderr, "%s\nRun with --help for what there is.\n", error.what());
      return 2;
    }
  }
  if (!print_config) return -1;
  return PrintAndEnd(SettingsText(settings));
}

}  // namespace bellwether
