#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/file_tensor.h"

namespace bellwether {

// Limits of the format and of ours (docs/formats.md).
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr size_t kSafetensorsNoteBytesMax = 4096;

// By its first bytes: a length and its JSON. The length tells it from GGUF, whose count of tensors may look
// like a brace.
bool IsSafetensors(absl::Span<const std::byte> file);

// The table of a whole .safetensors file, in the order of the data, checked strictly: the header is JSON in
// UTF-8 of the format's structure with no key twice, the data is covered exactly once, and every size is that
// of shape and type. InvalidArgument says what is wrong and with which tensor.
// `note`, unless null: what `bellwether convert` wrote into its metadata, cut to kSafetensorsNoteBytesMax.
absl::StatusOr<std::vector<FileTensor>> ParseSafetensors(absl::Span<const std::byte> file,
                                                         std::string* note = nullptr);

// The member of the metadata that `note` stands in.
inline constexpr char kSafetensorsNote[] = "bellwether";

}  // namespace bellwether
