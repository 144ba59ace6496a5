#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace bellwether {

// Writes to standard output, at once: whoever reads it sees each piece as it comes. An error says that what a
// program was asked for has not arrived (a full disk, a pipe that nobody reads any more; SIGPIPE must be
// ignored); it stays for all later calls, so that the last one tells of the first.
absl::Status WriteOutput(std::string_view text);

}  // namespace bellwether
