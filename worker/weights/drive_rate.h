#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// What a drive is taken for that nobody has measured.
inline constexpr double kAssumedDriveRate = 1e9;

// Bytes per second that are read from a file in `directory` past the system's cache, in blocks as layers are,
// measured now: for two seconds at most in a file that is made for it. Errors are those of the file system.
inline constexpr int64_t kDriveSampleBytes = int64_t{256} << 20;
absl::StatusOr<double> MeasureDriveRate(const std::string& directory,
                                        int64_t sample_bytes = kDriveSampleBytes);

// The same, measured the first time and remembered in the directory: the next call only looks it up.
absl::StatusOr<double> DriveRate(const std::string& directory, int64_t sample_bytes = kDriveSampleBytes);

}  // namespace bellwether
