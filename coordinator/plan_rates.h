#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// How fast a plan will be, from the times of its workers. Pure.

// Of a layer: behind attention and behind the MLP.
inline constexpr int kAllReducesPerLayer = 2;
// Of the ranks of a stage, each an index of `workers`.
double AllReduceSeconds(absl::Span<const WorkerInventory> workers, const PlannerOptions& options,
                        absl::Span<const size_t> ranks);

// With so many sequences at once, at most; arithmetic that nobody has measured counts as none.
BatchRate PredictBatch(absl::Span<const WorkerInventory> workers, const PlannerOptions& options,
                       const Plan& plan, int32_t sequences);

// What a step of so many tokens takes at least: alone, through all stages; or right behind another, when it
// comes as much later as the slowest stage takes.
double StepSeconds(const Plan& plan, int32_t tokens);
double StepSecondsBehind(const Plan& plan, int32_t tokens);

// Fills in what follows from layout and workers: rates, their bounds, imbalance, the times of drives.
void PredictRates(absl::Span<const WorkerInventory> workers, const PlannerOptions& options, Plan* plan);

}  // namespace bellwether
