#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/file_tensor.h"

namespace bellwether {

// Whether a file begins like those of torch.save before version 1.6.
bool IsTorchLegacy(absl::Span<const std::byte> file);

// The tensors of such a file: pickles one after the other, then each storage with its number of elements
// before it (docs/formats.md). Errors are those of ParseTorchArchive.
absl::StatusOr<std::vector<FileTensor>> ParseTorchLegacy(absl::Span<const std::byte> file);

}  // namespace bellwether
