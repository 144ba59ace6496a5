#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace bellwether {

// "16GB", "512MiB", "1e9", "40GB/s": `least` to 1000 TB, else InvalidArgument.
absl::StatusOr<double> ParseBytes(absl::string_view text, double least = 1);

}  // namespace bellwether
