#include "coordinator/rank_sizes.h"

#include <algorithm>

#include "model/gpu_size.h"
#include "model/row_limits.h"

namespace bellwether {
namespace {

constexpr int64_t kProcessBytes = int64_t{48} << 20;  // code, connections and buffers of a worker

}  // namespace

int64_t RankSizes::Weights(const WorkerInventory& worker, const StageLayout& stage, int rank,
                           StageEnds ends) const {
  return worker.gpu ? GpuShardBytes(config_, formats_, options_.quantize, stage, rank, ends)
                    : ShardBytes(config_, formats_, options_.quantize, stage, rank, ends);
}

int64_t RankSizes::Kv(const WorkerInventory& worker, const StageLayout& stage, int rank) const {
  return worker.gpu ? GpuKvBlockBytes(config_, options_.kv_type, stage, rank)
                    : KvBlockBytes(config_, options_.kv_type, stage, rank);
}

// The norm's output once more, where weights have their columns in another order.
int64_t RankSizes::Reordered(const StageLayout& stage, int64_t layer_rows) const {
  const auto layer = static_cast<int32_t>(stage.layers.begin);
  const bool reordered = formats_.FormatOf({TensorRole::kQuery, layer}).reordered ||
                         formats_.FormatOf({TensorRole::kUp, layer}).reordered;
  return reordered ? std::min<int64_t>(options_.step_tokens, layer_rows) * config_.hidden * 4 : 0;
}

// Of a CPU: fp32 buffers, the residual of a whole step, and what a layer (worker/decoder/decoder_layer.h) and
// the logits take beside it. Counted as if no width were split: so there is room for the partial sums of an
// even split.
int64_t RankSizes::Activations(const WorkerInventory& worker, const StageLayout& stage, int rank,
                               bool last_stage) const {
  if (worker.gpu) {
    const GpuStepLimits limits = {
        .step_tokens = options_.step_tokens,
        .context_tokens = options_.context_tokens,
        .limbs = MostGpuLimbs(config_, formats_, options_.quantize, stage.layers, last_stage)};
    return GpuScratchBytes(config_, stage.ranks[rank], limits, last_stage) +
           GpuMessageBytes(config_, stage, limits) + Reordered(stage, kGpuLayerRowsMax);
  }
  const int64_t attention = (int64_t{config_.heads} + 2 * config_.kv_heads) * config_.head_dim;
  const int64_t widest = std::max({attention, int64_t{config_.ffn}, int64_t{config_.hidden}});
  const int64_t layer_rows = std::min<int64_t>(options_.step_tokens, kLayerRowsMax);
  const int64_t layer = layer_rows * (config_.hidden + 3 * widest);  // one of them prepared for a product
  const int64_t logits = last_stage ? int64_t{kLogitRowsMax} * config_.vocab : 0;
  return kProcessBytes + 4 * (int64_t{options_.step_tokens} * config_.hidden + layer + logits) +
         Reordered(stage, kLayerRowsMax);
}

}  // namespace bellwether
