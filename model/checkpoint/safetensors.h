#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bellwether {

// Limits of the format and of ours (docs/formats.md).
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr size_t kSafetensorsTensorsMax = size_t{1} << 20;
inline constexpr size_t kSafetensorsRankMax = 8;

// One tensor of a .safetensors file.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32", "BF16" ...
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
};

// The table of a whole .safetensors file, in the order of the data, checked strictly: the header is JSON in
// UTF-8 of the format's structure with no key twice, the data is covered exactly once, and every size is that
// of shape and type. InvalidArgument says what is wrong and with which tensor.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::Span<const std::byte> file);

}  // namespace bellwether
