#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "model/assignment.h"
#include "worker/decoder/batch.h"
#include "worker/device/device.h"
#include "worker/link/tensor_parallel_group.h"
#include "worker/sampling/sampler.h"
#include "worker/weights/layer_source.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

// The end of the last stage: norm, logits and what is asked of them. Logits exist for 64 rows at a time, and
// only for rows that are asked for; rank 0 gets them all and samples.
class OutputHead {
 public:
  struct Options {
    const LoadedShard* shard = nullptr;
    const Assignment* assignment = nullptr;
    TensorParallelGroup* group = nullptr;
    DeviceOps* ops = nullptr;
    LayerSource* layers = nullptr;  // of the head's pieces, where it has some
  };
  // ResourceExhausted if there is no memory for the logits.
  static absl::StatusOr<std::unique_ptr<OutputHead>> Create(const Options& options);

  // Floats of the logits that GatherColumns is called with at most.
  static int64_t GatherFloatsMax(const Assignment& assignment);

  // Appends to result.outputs on rank 0, one for each entry of `step` that samples or scores.
  absl::Status Run(const Step& step, const Batch& batch, const MessageTag& tag, ConstRows residual,
                   StepResult& result);

 private:
  // A row whose logits are wanted, and for which output.
  struct WantedRow {
    int32_t row = 0;
    int32_t output = 0;
    const SequenceState* sequence = nullptr;
    TokenId scored = -1;  // score this token; -1: sample
  };
  explicit OutputHead(const Options& options);
  absl::Status Allocate();
  void CollectWanted(const Step& step, const Batch& batch, StepResult& result);
  absl::Status ComputeLogits(absl::Span<const WantedRow> rows, MessageTag tag, ConstRows residual);
  absl::Status MultiplyHead(ConstRows normed);
  // Where the host does not see the logits: the tokens that their largest decide (worker/sampling/largest.h),
  // and then the rows of the others.
  using Decided = std::vector<std::optional<SampledToken>>;
  absl::Status SampleFromLargest(absl::Span<const WantedRow> rows, Decided& decided);
  absl::Status FetchLogits(const Decided& decided);
  void UseLogits(absl::Span<const WantedRow> rows, const Decided& decided, StepResult& result);
  static SamplingInput InputOf(const WantedRow& row, absl::Span<const float> logits);
  std::string WhyNotFinite() const;

  const LoadedShard& shard_;
  const Assignment& assignment_;
  TensorParallelGroup& group_;
  DeviceOps& ops_;
  LayerSource& layers_;
  std::vector<int64_t> column_bounds_;  // [ranks + 1]: vocabulary rows of each rank
  std::vector<WantedRow> wanted_;
  float* normed_ = nullptr;
  // Rank 0 computes its columns in place among all of them, the others theirs alone.
  const int64_t logits_cols_;
  float* logits_ = nullptr;
  const float* host_logits_ = nullptr;  // rank 0: where the host reads them
  float* host_buffer_ = nullptr;        // where it does not read the device's memory
};

}  // namespace bellwether
