#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// The bytes of a file, also of a pipe or a device, which is waited for. NotFound: no such file;
// PermissionDenied and others: what the system says of it. ResourceExhausted: more than `bytes_max`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max);

}  // namespace bellwether
