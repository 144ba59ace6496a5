#pragma once

#include <vector>

#include "absl/status/status.h"
#include "common/step.h"
#include "worker/assignment.h"
#include "worker/decoder/batch.h"
#include "worker/decoder/decoder_layer.h"
#include "worker/decoder/parallel_ops.h"
#include "worker/link/all_reduce.h"
#include "worker/sampling/sampler.h"
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
    ParallelOps* ops = nullptr;
  };
  explicit OutputHead(const Options& options);

  // Appends to result.outputs on rank 0, one for each entry of `step` that samples or scores.
  absl::Status Run(const Step& step, const Batch& batch, const MessageTag& tag, kernels::ConstRows residual,
                   StepResult& result);

 private:
  // A row whose logits are wanted, and for which output.
  struct WantedRow {
    int32_t row = 0;
    int32_t output = 0;
    const SequenceState* sequence = nullptr;
    TokenId scored = -1;  // score this token; -1: sample
  };
  void CollectWanted(const Step& step, const Batch& batch, StepResult& result);
  absl::Status ComputeLogits(absl::Span<const WantedRow> rows, MessageTag tag, kernels::ConstRows residual);
  void UseLogits(absl::Span<const WantedRow> rows, StepResult& result);

  const LoadedShard& shard_;
  const Assignment& assignment_;
  TensorParallelGroup& group_;
  ParallelOps& ops_;
  std::vector<int64_t> column_bounds_;  // [ranks + 1]: vocabulary rows of each rank
  std::vector<WantedRow> wanted_;
  RowBuffer normed_, logits_;
  kernels::MutableRows logits_rows_;
};

}  // namespace bellwether
