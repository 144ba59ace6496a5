#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/file_tensor.h"

namespace bellwether {

// The tensors of a file of torch.save since version 1.6, whatever its suffix: a zip archive of a pickle and
// one entry for each storage (docs/formats.md). Every view is checked against its storage and every storage
// against its entry. InvalidArgument and Unimplemented say what is wrong and with which tensor.
absl::StatusOr<std::vector<FileTensor>> ParseTorchArchive(absl::Span<const std::byte> file);

}  // namespace bellwether
