#pragma once

#include <cstdint>

#include "coordinator/planner.h"

namespace bellwether {

// What a worker takes as rank `rank` of a stage, in the form and the memory of its device. Pure; what it is
// made from outlives it.
class RankSizes {
 public:
  RankSizes(const ModelConfig& config, const TensorFormats& formats, const PlannerOptions& options)
      : config_(config), formats_(formats), options_(options) {}

  int64_t Weights(const WorkerInventory& worker, const StageLayout& stage, int rank, StageEnds ends) const;
  // Of a block.
  int64_t Kv(const WorkerInventory& worker, const StageLayout& stage, int rank) const;
  int64_t Activations(const WorkerInventory& worker, const StageLayout& stage, int rank,
                      bool last_stage) const;

 private:
  int64_t Reordered(const StageLayout& stage, int64_t layer_rows) const;

  const ModelConfig& config_;
  const TensorFormats& formats_;
  const PlannerOptions& options_;
};

}  // namespace bellwether
