#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bellwether {

// Where a program's settings come from: flags, else BELLWETHER_* variables, else a file, else defaults. The
// only place that reads the environment and configuration files.

// The arguments of a program (without its name), those of lower rank first, so that a parser that lets the
// last one win does the rest: "--key=value" for each line "key = value" of the file that --config or
// BELLWETHER_CONFIG names, for each variable BELLWETHER_KEY of a name in `names` ("key-with-dashes"), then
// `arguments` as given.
//
// `environment` gives nullptr for variables that are not set. InvalidArgument: a line of the file that is not
// "key = value", naming file and line. NotFound: no such file.
absl::StatusOr<std::vector<std::string>> LayeredArguments(
    const std::vector<std::string>& arguments, const std::vector<std::string>& names,
    const std::function<const char*(const std::string&)>& environment);

// The same with the process's own environment.
absl::StatusOr<std::vector<std::string>> LayeredArguments(const std::vector<std::string>& arguments,
                                                          const std::vector<std::string>& names);

// "step-tokens" -> "BELLWETHER_STEP_TOKENS"
std::string EnvironmentName(std::string_view name);

}  // namespace bellwether
