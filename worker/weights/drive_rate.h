#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// What a drive is taken for that nobody has measured.
inline constexpr double kAssumedDriveRate = 1e9;

// Bytes per second that are read from a file in `directory` past the system's cache, in blocks as layers are.
// Measured for two seconds at most in a file that is made for it, and remembered beside it: the next call
// only looks it up. Errors are those of the file system.
absl::StatusOr<double> DriveRate(const std::string& directory);

}  // namespace bellwether
