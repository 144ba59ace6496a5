#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace bellwether {

// Writes a line "NAME HOST:PORT" for each port of a program that is in use, for whoever waits for the file:
// it is there as a whole or not at all. Ports without an address are left out; without a path nothing is
// written. Unavailable, with the name of the file, if it cannot be written; InvalidArgument where something
// stands there that is no regular file.
absl::Status WritePortFile(const std::string& path,
                           const std::vector<std::pair<std::string, std::string>>& ports);

}  // namespace bellwether
