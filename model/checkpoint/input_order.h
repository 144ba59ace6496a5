#pragma once

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "model/checkpoint/contents.h"
#include "model/config.h"

namespace bellwether {

// Gives the columns of matrices whose groups are of inputs all over (GPTQ's act-order) an order in which the
// groups follow each other (docs/formats.md):
//   down              its inputs have no order of their own: the rows of gate and up, and their biases, are
//                     put into that of its groups
//   query, key, value, gate, up
//                     TensorInfo tells the order, in which whoever multiplies picks the inputs
//   attention output  stays as it is and becomes fp32, because its inputs are cut into slices by heads
// Unimplemented, naming the tensor, where matrices with the same input do not share an order, and for a head.
absl::Status SettleInputOrders(const ModelConfig& config,
                               absl::flat_hash_map<TensorKey, StoredTensor>& tensors);

// Undoes that, for who writes them to files: rows and columns are as they are stored.
void UndoInputOrders(absl::flat_hash_map<TensorKey, StoredTensor>& tensors);

}  // namespace bellwether
