#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/file_tensor.h"

namespace bellwether {

// Files that are a table of named tensors and nothing else, told apart by their first bytes, whatever they
// are called.
enum class TensorContainer { kSafetensors, kTorch };

std::string Name(TensorContainer container);  // "safetensors", "torch"

struct TensorTableFile {
  TensorContainer container = TensorContainer::kSafetensors;
  std::vector<FileTensor> tensors;
  std::string note;  // of `bellwether convert`: what was done to the weights; empty in other files
};

// What a file of weights holds. Unimplemented: torch's tar archives from before 0.1.10. InvalidArgument:
// damaged, or something else, by name.
absl::StatusOr<TensorTableFile> ReadTensorTable(absl::Span<const std::byte> file);

// Whether the file at `path` begins like one of these, or like an older one of torch.
absl::StatusOr<bool> HasTensorTable(const std::string& path);

}  // namespace bellwether
