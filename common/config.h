#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bellwether {

// Where a program's settings come from: flags, else BELLWETHER_* variables, else a file, else defaults. The
// only place that reads the environment and configuration files.

// Name -> the names that it leaves out below the rank that gives it, as it says the same thing in another
// way.
using Displacements = std::map<std::string, std::vector<std::string>>;

// The arguments of a program (without its name): "--key=value" for each line "key = value" of the file that
// --config or BELLWETHER_CONFIG names, for each variable BELLWETHER_KEY of a name in `names`
// ("key-with-dashes"), then `arguments` as given. A key that a higher rank gives or displaces is left out
// below; an empty value stands for the default. A value in quotes may have the escapes of C, and "" is a
// value.
//
// `environment` gives nullptr for variables that are not set. InvalidArgument: a line of the file that is not
// "key = value" or whose key is not in `names`, naming file and line. NotFound: no such file.
absl::StatusOr<std::vector<std::string>> LayeredArguments(
    const std::vector<std::string>& arguments, const std::vector<std::string>& names,
    const Displacements& displacements, const std::function<const char*(const std::string&)>& environment);

// The same with the process's own environment.
absl::StatusOr<std::vector<std::string>> LayeredArguments(const std::vector<std::string>& arguments,
                                                          const std::vector<std::string>& names,
                                                          const Displacements& displacements);

// A line of such a file, with its end, that gives `value` back.
std::string ConfigLine(std::string_view name, std::string_view value);

// The process's environment, "NAME=value", without our settings and the service manager's: for programs that
// are told theirs by flags.
std::vector<std::string> EnvironmentWithoutSettings();

// Where the service manager hears of this process (NOTIFY_SOCKET of sd_notify(3)); empty if there is none.
std::string ServiceSocket();

// The variable by which gRPC goes through an HTTP proxy to `host`: grpc_proxy, https_proxy or http_proxy,
// unless no_grpc_proxy or no_proxy names the host or its end. Empty: it goes straight there. gRPC's rules,
// retold so that people can be told.
std::string ProxyVariable(std::string_view host,
                          const std::function<const char*(const std::string&)>& environment);
std::string ProxyVariable(std::string_view host);

// Of the process's environment; null if it is not set.
const char* EnvironmentVariable(const std::string& name);

// "step-tokens" -> "BELLWETHER_STEP_TOKENS"
std::string EnvironmentName(std::string_view name);

}  // namespace bellwether
