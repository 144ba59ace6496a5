#include "coordinator/step_budget.h"

#include <string>
#include <vector>

#include "common/step.h"
#include "common/step_tokens.h"
#include "coordinator/plan_rates.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/shapes.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGiB = int64_t{1} << 30;
const UniformFormats kBF16({.format = WeightFormat::kBF16});

WorkerInventory Worker(const std::string& name, const std::string& host, double gib, double drive,
                       double gflops) {
  return {.name = name,
          .host = host,
          .memory_bytes = static_cast<int64_t>(gib * kGiB),
          .threads = 4,
          .read_bytes_per_second = 20e9,
          .drive_bytes_per_second = drive,
          .arithmetic = {.floats = gflops * 1e9},
          .kernel_levels = {"avx2"}};
}

// One worker, which streams for so long and computes a token in so long.
Plan Streaming(double drive_seconds, double arithmetic_seconds) {
  Plan plan;
  plan.layout.stages.resize(1);
  plan.workers.push_back({.drive_seconds = drive_seconds, .arithmetic_seconds = arithmetic_seconds});
  plan.kv_blocks = 1000;
  plan.drive_seconds = drive_seconds;
  plan.token_seconds = 0.1;
  plan.drive_bound = drive_seconds > 0;
  return plan;
}

TEST(StepBudgetTest, AsManyTokensAsArithmeticDoesWhileTheDriveReads) {
  const StepBudget budget = BalancedStepTokens(Streaming(/*drive_seconds=*/5, 0.004), {});
  EXPECT_EQ(budget.tokens, 1248) << "1250, in whole KV blocks";
  EXPECT_EQ(budget.why, "what arithmetic does in the 5 s that drives take");
}

TEST(StepBudgetTest, StagesComputeOneAfterTheOther) {
  Plan plan = Streaming(4, 0.01);
  plan.layout.stages.resize(2);
  // The ranks of a stage at once.
  plan.workers.push_back({.stage = 1, .rank = 0, .drive_seconds = 2, .arithmetic_seconds = 0.01});
  plan.workers.push_back({.stage = 1, .rank = 1, .drive_seconds = 1, .arithmetic_seconds = 0.02});
  EXPECT_EQ(BalancedStepTokens(plan, {}).tokens, 192) << "6 s of drives, 0.03 s a token: 200";
}

TEST(StepBudgetTest, WhereNoDriveBindsOrNobodyMeasuredTheDefaultStays) {
  StepBudget budget = BalancedStepTokens(Streaming(0, 0.01), {});
  EXPECT_EQ(budget.tokens, kDefaultStepTokens);
  EXPECT_THAT(budget.why, HasSubstr("no drive binds"));
  budget = BalancedStepTokens(Streaming(3, 0), {});
  EXPECT_EQ(budget.tokens, kDefaultStepTokens);
  EXPECT_THAT(budget.why, HasSubstr("nobody has measured"));
}

TEST(StepBudgetTest, NeitherTooFewNorTooMany) {
  // Sequences that decode come first in a step: a prompt would never have its turn.
  EXPECT_EQ(BalancedStepTokens(Streaming(5, 1), {.plan_for_batch = 16}).tokens, 64);
  EXPECT_EQ(BalancedStepTokens(Streaming(5, 1), {.plan_for_batch = 33}).tokens, 96);
  EXPECT_THAT(BalancedStepTokens(Streaming(5, 1), {.plan_for_batch = 16}).why, HasSubstr("does 5 tokens"));
  Plan plan = Streaming(100, 0.001);
  EXPECT_EQ(BalancedStepTokens(plan, {}).tokens, 1000 * kKvBlockTokens);
  EXPECT_THAT(BalancedStepTokens(plan, {}).why, HasSubstr("KV cache"));
  plan.kv_blocks = 1 << 20;
  EXPECT_EQ(BalancedStepTokens(plan, {}).tokens, kStepTokensMax);
  plan.token_seconds = 5;  // 12 hours of them
  EXPECT_EQ(BalancedStepTokens(plan, {}).tokens, (12 * 3600 - 100) / 5 / kKvBlockTokens * kKvBlockTokens);
  EXPECT_THAT(BalancedStepTokens(plan, {}).why, HasSubstr("stuck"));
}

// -- In a plan

TEST(StepBudgetTest, APlanDecidesAndSaysWhy) {
  const ModelConfig config = *ParseShape("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h", 8, 2e9, /*gflops=*/2000)};
  const PlannerOptions options{.kv_type = DType::kBF16, .step_tokens = kStepTokensAuto};
  const auto plan = MakePlan(config, kBF16, workers, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GT(plan->step_tokens, kDefaultStepTokens);
  EXPECT_THAT(plan->arithmetic, HasSubstr("a step has at most " + std::to_string(plan->step_tokens) +
                                          " tokens: what arithmetic does in the"));
  // What it takes for them is counted, and their arithmetic is not waited for.
  const auto usual = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16});
  ASSERT_TRUE(usual.ok()) << usual.status();
  EXPECT_GT(plan->workers[0].activation_bytes, usual->workers[0].activation_bytes);
  EXPECT_LE(plan->step_tokens * plan->workers[0].arithmetic_seconds, plan->drive_seconds);
  EXPECT_GT((plan->step_tokens + 2 * kKvBlockTokens) * plan->workers[0].arithmetic_seconds,
            usual->drive_seconds);
  EXPECT_DOUBLE_EQ(StepSeconds(*plan, plan->step_tokens), StepSeconds(*plan, 1)) << "they cost nothing";
}

TEST(StepBudgetTest, ActivationsTakeNoMoreThanAShareOfTheMemory) {
  const ModelConfig config = *ParseShape("llama-7b");
  // The drive is so slow that a step could have tens of thousands of tokens, of 16 KiB each.
  const auto plan = MakePlan(config, kBF16, {Worker("a", "h", 8, 0.2e9, /*gflops=*/20000)},
                             {.kv_type = DType::kBF16, .step_tokens = kStepTokensAuto});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GT(plan->step_tokens, kDefaultStepTokens);
  EXPECT_LE(int64_t{plan->step_tokens} * 4 * config.hidden,
            8 * kGiB / kActivationShareOfStreaming + int64_t{kDefaultStepTokens} * 4 * config.hidden);
}

TEST(StepBudgetTest, WhatFitsIsPlannedAsEver) {
  const ModelConfig config = *ParseShape("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h", 32, 2e9, 2000)};
  const auto plan = MakePlan(config, kBF16, workers, {.step_tokens = kStepTokensAuto});
  const auto usual = MakePlan(config, kBF16, workers, {.step_tokens = kDefaultStepTokens});
  ASSERT_TRUE(plan.ok() && usual.ok()) << plan.status() << usual.status();
  EXPECT_EQ(plan->step_tokens, kDefaultStepTokens);
  EXPECT_EQ(plan->workers[0].activation_bytes, usual->workers[0].activation_bytes);
  EXPECT_THAT(usual->arithmetic, Not(HasSubstr("a step has at most")));
}

TEST(StepBudgetTest, WhatDoesNotFitIsRefusedAsEver) {
  const ModelConfig config = *ParseShape("llama-7b");
  const auto plan =
      MakePlan(config, kBF16, {Worker("a", "h", 1, 2e9, 2000)}, {.step_tokens = kStepTokensAuto});
  EXPECT_TRUE(absl::IsFailedPrecondition(plan.status())) << plan.status();
}

}  // namespace
}  // namespace bellwether
