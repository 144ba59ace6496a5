#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// How many tokens a step may have where layers are streamed (--step-tokens auto). Pure.
//
// A step reads all streamed layers, however many tokens it has. So it should have as many prompt tokens as
// arithmetic does meanwhile: with fewer, prompts take more passes over the drive than they need; with more,
// sequences that decode in the same step wait for the arithmetic of others.

struct StepBudget {
  int32_t tokens = 0;
  std::string why;  // for people, behind "a step has at most N tokens: "
};

// Of what `plan` gives. In whole KV blocks; at least as many as are planned to decode at once and a block of
// prompt beside them, at most what the KV cache holds and a step may have before it would be taken for stuck.
// kDefaultStepTokens where no drive binds, or some arithmetic is not known.
StepBudget BalancedStepTokens(const Plan& plan, const PlannerOptions& options);

// MakePlan where `options` leave the number to the plan. Activations grow with a step, and take memory from
// layers: of a host that streams, at most kActivationShareOfStreaming-th of its memory beyond what steps of
// kDefaultStepTokens take. One pass: what a larger step then streams more would only allow a larger one.
inline constexpr int64_t kActivationShareOfStreaming = 16;
absl::StatusOr<Plan> MakeBalancedPlan(const ModelConfig& config, const TensorFormats& formats,
                                      absl::Span<const WorkerInventory> workers,
                                      const PlannerOptions& options);

}  // namespace bellwether
