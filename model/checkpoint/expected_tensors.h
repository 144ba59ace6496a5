#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// A tensor that a config asks for.
struct ExpectedTensor {
  TensorKey key;
  int64_t rows = 0;  // 1 for vectors
  int64_t cols = 0;
};

// All of them, in the order of Checkpoint::Keys(). Without the head if it is tied.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// Collects the tensors of a checkpoint and checks them against its config.
class TensorTable {
 public:
  explicit TensorTable(const ModelConfig& config);

  // What the config asks for; null if it has no such tensor.
  const ExpectedTensor* Expected(const TensorKey& key) const;

  // `tensor.info` says shape and source. InvalidArgument if the config has no such tensor, asks for another
  // shape, or if there is one already.
  absl::Status Add(const TensorKey& key, const StoredTensor& tensor);
  // InvalidArgument, naming the first of them, if tensors are missing.
  absl::StatusOr<absl::flat_hash_map<TensorKey, StoredTensor>> Finish() &&;

 private:
  const std::vector<ExpectedTensor> expected_;
  absl::flat_hash_map<TensorKey, const ExpectedTensor*> shapes_;
  absl::flat_hash_map<TensorKey, StoredTensor> tensors_;
};

}  // namespace bellwether
