#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "model/layout.h"
#include "model/streamed_layers.h"

namespace bellwether {

// What the coordinator wants of a worker in one epoch, links aside.
struct Assignment {
  Epoch epoch;
  std::string model_id;
  Layout layout;
  int stage = 0;
  int rank = 0;
  NumericOptions numeric;
  int32_t kv_blocks = 0;
  int32_t context_tokens = 0;  // of a sequence, at most
  int32_t step_tokens = 0;     // of a step, at most
  absl::Duration step_deadline;
  int32_t streamed_layers = 0;  // of this worker's: their weights come from elsewhere, step after step
  WeightHome stream_home = WeightHome::kDrive;  // where from
  StreamedEnds streamed_ends;                   // likewise of what is outside them
  // The workers of this host have more threads than cores: who waits had better sleep than spin.
  bool cores_are_short = false;
  // Of every stage, which tells those of GPUs; empty: all as `numeric` says.
  std::vector<std::string> stage_kernel_levels;

  const StageLayout& stage_layout() const { return layout.stages[stage]; }
  const RankLayout& rank_layout() const { return stage_layout().ranks[rank]; }
  bool Streams() const { return streamed_layers > 0 || streamed_ends.any(); }
  bool StreamsFromDrive() const { return Streams() && stream_home == WeightHome::kDrive; }
  bool first_stage() const { return stage == 0; }
  bool last_stage() const { return stage + 1 == static_cast<int>(layout.stages.size()); }
};

}  // namespace bellwether
