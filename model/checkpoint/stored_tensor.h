#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/block_tensor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/file_tensor.h"

namespace bellwether {

// A vector or matrix of floats as a file's table describes it. `source` names file and tensor. Unimplemented:
// types that are no floats; InvalidArgument: other numbers of dimensions.
absl::StatusOr<StoredTensor> StoreTensor(const FileTensor& tensor,
                                         const std::shared_ptr<const FileMapping>& file,
                                         const std::string& source);

// The same of a table of blocks. Unimplemented: a quantised vector.
absl::StatusOr<StoredTensor> StoreTensor(const BlockTensor& tensor,
                                         const std::shared_ptr<const FileMapping>& file,
                                         const std::string& source);

// The values of a window that lies within the tensor, row by row, as they are stored: without adjustments and
// rounding. Not of quantised linears.
void DecodeWindow(const StoredTensor& tensor, const TensorWindow& window, absl::Span<float> out);
// As Checkpoint::ReadFloats.
absl::Status ReadStored(const StoredTensor& tensor, const TensorWindow& window, absl::Span<float> out);

// As Checkpoint::ReadQuantized, of a window that cuts no group.
absl::StatusOr<QuantizedRows> ReadStoredQuantized(const StoredTensor& tensor, const TensorWindow& window);

// Everything that it is read from, what adjusts it included; a file may come several times.
void ForEachFile(const StoredTensor& tensor, absl::FunctionRef<void(const FileMapping&)> use);
// Of files, without what adjusts it; 0 if it is made up.
int64_t BytesOf(const StoredTensor& tensor);
// Gives back the pages of everything that it is read from.
void DropStored(const StoredTensor& tensor);

}  // namespace bellwether
