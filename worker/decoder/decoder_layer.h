#pragma once

#include <vector>

#include "absl/status/status.h"
#include "model/config.h"
#include "worker/decoder/batch.h"
#include "worker/decoder/parallel_ops.h"
#include "worker/kv_cache/kv_cache.h"
#include "worker/link/all_reduce.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

// fp32 rows that grow to the largest call and stay.
class RowBuffer {
 public:
  // At least rows x cols, contents unspecified.
  kernels::MutableRows Get(int64_t rows, int64_t cols) {
    const size_t size = static_cast<size_t>(rows * cols);
    if (values_.size() < size) values_.resize(size);
    return {values_.data(), rows, cols};
  }

 private:
  std::vector<float> values_;
};

inline kernels::ConstRows AsConst(kernels::MutableRows rows) { return {rows.data, rows.rows, rows.stride}; }

// One decoder layer on one tensor-parallel rank: LLaMA and BLOOM, steered by the config. Holds scratch, no
// state.
class DecoderLayer {
 public:
  struct Options {
    const ModelConfig* config = nullptr;
    SliceRange slices;  // this rank's
    const KvCache* kv_cache = nullptr;
    TensorParallelGroup* group = nullptr;
    ParallelOps* ops = nullptr;
  };
  explicit DecoderLayer(const Options& options);

  // residual [rows, hidden] -> the residual after the layer, in place, equal on all ranks. `cache_layer`
  // counts from this stage's first layer. Fails only if a link does.
  absl::Status Run(const LayerWeights& weights, int64_t cache_layer, const Batch& batch, MessageTag tag,
                   kernels::MutableRows residual);

 private:
  // The same for `rows` of the batch, of which `residual` and the scratch have only those.
  absl::Status RunBlock(const LayerWeights& weights, int64_t cache_layer, const Batch& batch, Range rows,
                        const MessageTag& tag, kernels::MutableRows residual);
  void TakeScratch(int64_t rows);
  void Attention(int64_t cache_layer, const Batch& batch, Range rows);
  void WriteKeysAndValues(int64_t cache_layer, const Batch& batch, Range rows);
  // `rows` of the batch, all within `run`; the scratch begins with row `first_row` of the batch.
  void AttendRows(int64_t cache_layer, const Batch::Run& run, int64_t kv_head, Range rows, int64_t first_row);
  // residual (or, with residual_after_norm, the norm's output) += row-parallel product + bias. `input` lies
  // in odd_buffer_ and is used up.
  absl::Status AddReduced(const kernels::PackedMatrix& weights, const std::vector<float>& bias,
                          kernels::ConstRows input, const MessageTag& tag, kernels::MutableRows residual);

  const ModelConfig& config_;
  const KvCache& kv_cache_;
  TensorParallelGroup& group_;
  ParallelOps& ops_;
  const Range heads_, kv_heads_;
  const int64_t ffn_;
  const int64_t roots_;
  const int64_t queries_per_kv_;     // query heads that share a KV head, in the whole model
  std::vector<float> alibi_slopes_;  // of every query head; empty with RoPE
  const float score_scale_;

  // Scratch of one block. What is made from rows of one of the last two buffers goes to the other.
  RowBuffer normed_buffer_, even_buffer_, odd_buffer_;
  kernels::MutableRows normed_;
  kernels::MutableRows query_, key_, value_, up_, partial_;  // in even_buffer_
  kernels::MutableRows attended_, activated_, sum_;          // in odd_buffer_
};

}  // namespace bellwether
