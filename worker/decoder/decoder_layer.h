#pragma once

#include <algorithm>
#include <memory>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/layout.h"
#include "worker/device/device.h"
#include "worker/link/tensor_parallel_group.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

// One decoder layer on one tensor-parallel rank: all families, steered by the config. Holds scratch, no
// state.
class DecoderLayer {
 public:
  struct Options {
    const ModelConfig* config = nullptr;
    SliceRange slices;       // this rank's
    int64_t rows_max = 0;    // taken at once
    bool reordered = false;  // some weights have an input order
    TensorParallelGroup* group = nullptr;
    DeviceOps* ops = nullptr;
  };
  // ResourceExhausted if the device has no memory for the scratch.
  static absl::StatusOr<std::unique_ptr<DecoderLayer>> Create(const Options& options);

  // residual [rows, hidden] -> the residual after the layer, in place, equal on all ranks; the rows are those
  // of the batch that the ops have begun. `cache_layer` counts from this stage's first layer. Fails only if a
  // link or the device does.
  absl::Status Run(const LayerWeights& weights, int64_t cache_layer, MessageTag tag, MutableRows residual);

 private:
  explicit DecoderLayer(const Options& options);
  absl::Status Allocate();
  // What a row of a block takes of each of the two buffers that take turns.
  int64_t EvenFloats() const;
  int64_t OddFloats() const;

  // The same for `rows` of the batch, of which `residual` and the scratch have only those.
  absl::Status RunBlock(const LayerWeights& weights, int64_t cache_layer, Range rows, const MessageTag& tag,
                        MutableRows residual);
  void TakeScratch(int64_t rows);
  // The norm's output with its columns as the weights that follow have theirs.
  ConstRows NormedInOrder(DeviceVector order);
  // residual (or, with residual_after_norm, the norm's output) += row-parallel product + bias. `input` lies
  // in odd_buffer_ and is used up.
  absl::Status AddReduced(const DeviceMatrix& weights, DeviceVector bias, ConstRows input,
                          const MessageTag& tag, MutableRows residual);

  const ModelConfig& config_;
  TensorParallelGroup& group_;
  DeviceOps& ops_;
  const int64_t rows_max_;
  const bool reordered_;
  const int64_t query_cols_, key_cols_, ffn_;  // this rank's
  const int64_t roots_;

  // Scratch of one block. What is made from rows of one of the last two buffers goes to the other.
  float* normed_buffer_ = nullptr;
  float* ordered_buffer_ = nullptr;  // only if reordered_
  float* even_buffer_ = nullptr;
  float* odd_buffer_ = nullptr;
  MutableRows normed_, ordered_;
  MutableRows query_, key_, value_, up_, partial_;  // in even_buffer_
  MutableRows attended_, activated_, sum_;          // in odd_buffer_
};

}  // namespace bellwether
