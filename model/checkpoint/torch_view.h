#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/checkpoint/file_tensor.h"
#include "model/checkpoint/torch_pickle.h"

namespace bellwether {

// Where a storage of torch lies in its file.
struct TorchStorage {
  std::string name;  // for messages
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Of a type in the words of PickledTensor.
uint64_t ElementBytes(std::string_view dtype);

// Where a tensor lies that is a view of this storage. InvalidArgument if the storage is not as long as the
// tensor says, or the view reaches beyond it.
absl::StatusOr<FileTensor> PlaceView(const NamedPickledTensor& tensor, const TorchStorage& storage);
// For a tensor whose storage the file has not.
absl::Status NoStorage(const NamedPickledTensor& tensor);

}  // namespace bellwether
