#include "coordinator/step_budget.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/defaults.h"
#include "common/step.h"
#include "common/step_tokens.h"

namespace bellwether {
namespace {

int32_t WholeBlocks(double tokens) {
  const double blocks = std::floor(std::min<double>(tokens, kStepTokensMax) / kKvBlockTokens);
  return static_cast<int32_t>(blocks) * kKvBlockTokens;
}

struct StageSeconds {
  double drive = 0;
  double arithmetic = 0;  // of one token
};

// Of all stages, one after the other; 0 arithmetic where some is not known.
StageSeconds SumOfStages(const Plan& plan) {
  std::vector<StageSeconds> stages(plan.layout.stages.size());
  bool known = true;
  for (const PlannedWorker& worker : plan.workers) {
    StageSeconds& stage = stages[worker.stage];
    stage.drive = std::max(stage.drive, worker.drive_seconds);
    stage.arithmetic = std::max(stage.arithmetic, worker.arithmetic_seconds);
    known = known && worker.arithmetic_seconds > 0;
  }
  StageSeconds sum;
  for (const StageSeconds& stage : stages) {
    sum.drive += stage.drive;
    sum.arithmetic += known ? stage.arithmetic : 0;
  }
  return sum;
}

// Of each memory that weights lie in: what its workers' activations take, and a share of it.
bool ActivationsFit(const Plan& plan, const Plan& with_default, absl::Span<const WorkerInventory> workers) {
  std::map<std::string, int64_t> room;
  for (const PlannedWorker& worker : with_default.workers) {
    const WorkerInventory& inventory = workers[worker.inventory];
    const auto [it, is_new] = room.try_emplace(inventory.gpu ? inventory.gpu->uuid : inventory.host, 0);
    const int64_t memory = inventory.gpu ? inventory.gpu->free_bytes : inventory.memory_bytes;
    if (is_new) it->second = memory / kActivationShareOfStreaming;
    it->second += worker.activation_bytes;
  }
  for (const PlannedWorker& worker : plan.workers) {
    const WorkerInventory& inventory = workers[worker.inventory];
    room[inventory.gpu ? inventory.gpu->uuid : inventory.host] -= worker.activation_bytes;
  }
  return std::all_of(room.begin(), room.end(), [](const auto& it) { return it.second >= 0; });
}

Plan Explained(Plan plan, const std::string& why) {
  absl::StrAppend(&plan.arithmetic, "a step has at most ", plan.step_tokens, " tokens: ", why, "\n");
  return plan;
}

}  // namespace

StepBudget BalancedStepTokens(const Plan& plan, const PlannerOptions& options) {
  const StageSeconds stages = SumOfStages(plan);
  if (!plan.drive_bound) return {kDefaultStepTokens, "the default, as no drive binds"};
  if (stages.arithmetic == 0)
    return {kDefaultStepTokens, "the default, as nobody has measured the arithmetic of some worker"};
  const double balance = stages.drive / stages.arithmetic;
  const std::string why =
      absl::StrFormat("what arithmetic does in the %.3g s that drives take", stages.drive);
  const struct {
    int32_t tokens;
    std::string why;
  } limits[] = {
      {plan.kv_blocks * kKvBlockTokens, "all that the KV cache holds"},
      {WholeBlocks((absl::ToDoubleSeconds(kStepDeadlineMax) / 2 - plan.drive_seconds) / plan.token_seconds),
       "more might be taken for stuck"},
      {kStepTokensMax, "more is not allowed"}};
  StepBudget budget{WholeBlocks(balance), why};
  const int32_t least = WholeBlocks(options.plan_for_batch + 2 * kKvBlockTokens - 1);
  if (budget.tokens < least) {
    budget = {least, absl::StrFormat("room for %d sequences that decode and a block of a prompt; arithmetic "
                                     "does %.0f tokens in the %.3g s that drives take",
                                     options.plan_for_batch, balance, stages.drive)};
  }
  for (const auto& limit : limits) {
    if (budget.tokens > limit.tokens) budget = {limit.tokens, limit.why};
  }
  budget.tokens = std::max(budget.tokens, kKvBlockTokens);
  return budget;
}

absl::StatusOr<Plan> MakeBalancedPlan(const ModelConfig& config, const TensorFormats& formats,
                                      absl::Span<const WorkerInventory> workers,
                                      const PlannerOptions& options) {
  PlannerOptions sized = options;
  sized.step_tokens = kDefaultStepTokens;
  absl::StatusOr<Plan> with_default = MakePlan(config, formats, workers, sized);
  if (!with_default.ok()) return with_default;
  StepBudget budget = BalancedStepTokens(*with_default, options);
  while (budget.tokens != kDefaultStepTokens) {
    sized.step_tokens = budget.tokens;
    absl::StatusOr<Plan> plan = MakePlan(config, formats, workers, sized);
    if (plan.ok() && plan->drive_bound && ActivationsFit(*plan, *with_default, workers))
      return Explained(*std::move(plan), budget.why);
    if (budget.tokens < kDefaultStepTokens)
      return Explained(*std::move(with_default), "the default, as with fewer no drive binds");
    budget = {std::max(WholeBlocks(budget.tokens / 2.0), kDefaultStepTokens),
              "activations of more would take too much memory from layers"};
  }
  return Explained(*std::move(with_default), budget.why);
}

}  // namespace bellwether
