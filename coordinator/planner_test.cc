#include "coordinator/planner.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/plan_rates.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/context_tokens.h"
#include "model/shapes.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;
const UniformFormats kBF16({.format = WeightFormat::kBF16});

WorkerInventory Worker(const std::string& name, const std::string& host, int64_t gib,
                       double gigabytes_per_second = 20) {
  return {.name = name,
          .host = host,
          .memory_bytes = gib * kGiB,
          .threads = 4,
          .read_bytes_per_second = gigabytes_per_second * 1e9,
          .kernel_levels = {"reference", "portable", "avx2"}};
}

ModelConfig Model(const std::string& shape) { return *ParseShape(shape); }

std::vector<size_t> Order(const Plan& plan) {
  std::vector<size_t> order;
  for (const PlannedWorker& worker : plan.workers) order.push_back(worker.inventory);
  return order;
}

std::vector<int> Degrees(const Plan& plan) {
  std::vector<int> degrees;
  for (const StageLayout& stage : plan.layout.stages) degrees.push_back(static_cast<int>(stage.ranks.size()));
  return degrees;
}

TEST(ContextTokensTest, DefaultAndLimits) {
  ModelConfig config = Model("llama-7b");
  config.max_positions = 2048;
  EXPECT_EQ(ContextTokens(config, 0).value(), 2048);
  EXPECT_EQ(ContextTokens(config, 2).value(), 2);
  EXPECT_EQ(ContextTokens(config, 2048).value(), 2048);
  EXPECT_THAT(std::string(ContextTokens(config, 2049).status().message()), HasSubstr("positions up to 2048"));
  EXPECT_FALSE(ContextTokens(config, 1).ok());
  EXPECT_FALSE(ContextTokens(config, -1).ok());
  config.max_positions = 100000;
  EXPECT_EQ(ContextTokens(config, 0).value(), 4096);
  config.max_positions = 2048;
  config.alibi = true;
  EXPECT_EQ(ContextTokens(config, 5000).value(), 5000);
}

TEST(PlannerTest, OneHostIsOneTensorParallelStage) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h", 32), Worker("b", "h", 32),
                                                Worker("c", "h", 32)};
  const auto plan = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(Validate(plan->layout, config).ok());
  EXPECT_THAT(Degrees(*plan), ElementsAre(3));
  EXPECT_EQ(plan->KernelLevelText(), "avx2");
  EXPECT_EQ(plan->bound_by.substr(0, 16), "memory bandwidth");
  // The host's memory is counted once: 13.5 GB of weights and the KV of all ranks.
  int64_t used = 0, weights = 0;
  for (const PlannedWorker& worker : plan->workers) {
    used += worker.weight_bytes + worker.activation_bytes + worker.kv_bytes;
    weights += worker.weight_bytes;
  }
  EXPECT_NEAR(static_cast<double>(weights), 13.5e9, 0.3e9);
  EXPECT_LE(used, static_cast<int64_t>(32 * 0.9 * kGiB));
  EXPECT_GT(used, static_cast<int64_t>(32 * 0.88 * kGiB));
  EXPECT_THAT(plan->arithmetic, HasSubstr("host h: 32.0 GiB free, 28.8 GiB usable"));
  EXPECT_GE(plan->imbalance, 1.0);
  EXPECT_LT(plan->imbalance, 1.3) << "16 slices on 3 ranks: 6 where 5.33 are the mean";
}

TEST(PlannerTest, HostsBecomeStagesWithTheirOwnDegree) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a0", "a", 24), Worker("b0", "b", 24),
                                                Worker("a1", "a", 24)};
  const auto plan = MakePlan(config, kBF16, workers, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(Validate(plan->layout, config).ok());
  EXPECT_THAT(Degrees(*plan), ElementsAre(2, 1));
  EXPECT_THAT(Order(*plan), ElementsAre(0, 2, 1));
  // Two workers read together twice as fast, so their stage gets about twice the layers.
  EXPECT_NEAR(static_cast<double>(plan->layout.stages[0].layers.size()), 22, 2);
  EXPECT_LT(plan->imbalance, 1.1);
  EXPECT_GT(plan->pipeline_tokens_per_second, 1.8 * plan->decode_tokens_per_second);
  EXPECT_DOUBLE_EQ(StepSeconds(*plan, 1), 1 / plan->decode_tokens_per_second);
  EXPECT_DOUBLE_EQ(StepSecondsBehind(*plan, 1), 1 / plan->pipeline_tokens_per_second);
}

TEST(PlannerTest, TheHeadWeighsInTheSplit) {
  const ModelConfig config = Model("bloom-7b");  // 250880 rows: the head is worth 5 layers
  const std::vector<WorkerInventory> workers = {Worker("a", "a", 32), Worker("b", "b", 32)};
  const auto plan = MakePlan(config, kBF16, workers, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GE(plan->layout.stages[0].layers.size(), 17);
  EXPECT_LT(plan->imbalance, 1.05);
}

TEST(PlannerTest, ASmallHostTakesFewerLayers) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a", "a", 6), Worker("b", "b", 32)};
  const auto plan = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LT(plan->layout.stages[0].layers.size(), 13);
  EXPECT_GE(plan->kv_blocks, 64);
}

TEST(PlannerTest, ForcedDegreesAndLayouts) {
  const ModelConfig config = Model("llama-1.1b");
  std::vector<WorkerInventory> workers;
  for (int i = 0; i < 5; ++i) workers.push_back(Worker("w" + std::to_string(i), i < 3 ? "a" : "b", 16));
  const auto both = MakePlan(config, kBF16, workers, {.stages = 2, .ranks = 2});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_THAT(Degrees(*both), ElementsAre(2, 2));
  EXPECT_THAT(Order(*both), ElementsAre(0, 1, 3, 4)) << "a stage stays on one host";
  EXPECT_THAT(both->arithmetic, HasSubstr("not used: w2"));
  EXPECT_THAT(Degrees(*MakePlan(config, kBF16, workers, {.stages = 4})), ElementsAre(1, 1, 1, 2));
  EXPECT_THAT(Degrees(*MakePlan(config, kBF16, workers, {.stages = 1})), ElementsAre(5));
  EXPECT_THAT(Degrees(*MakePlan(config, kBF16, workers, {.ranks = 1})), ElementsAre(1, 1, 1, 1, 1));
  EXPECT_THAT(Degrees(*MakePlan(config, kBF16, workers, {.ranks = 4})), ElementsAre(4));

  Layout layout = *EvenLayout(config, 2, 1);
  layout.stages[0].layers = {0, 3};
  layout.stages[1].layers = {3, 22};
  const auto forced = MakePlan(config, kBF16, workers, {.layout = layout});
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_EQ(forced->layout, layout);
  EXPECT_GT(forced->imbalance, 1.5);

  EXPECT_EQ(MakePlan(config, kBF16, workers, {.stages = 3, .ranks = 2}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.ranks = 17}).status(),
            absl::InvalidArgumentError(
                "17 tensor-parallel ranks asked for: this model takes 1-16 ranks and 1-22 stages"))
      << "not of 0 stages, which nobody asked for";
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.stages = 6}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  layout.stages[1].layers = {4, 22};
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.layout = layout}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// What the workers of `plan` hold once they have loaded it, `lost` aside.
std::vector<WorkerInventory> AfterLoading(std::vector<WorkerInventory> workers, const Plan& plan,
                                          size_t lost) {
  const auto layout = std::make_shared<const Layout>(plan.layout);
  for (const PlannedWorker& worker : plan.workers) {
    if (worker.inventory == lost) continue;
    workers[worker.inventory].held =
        HeldPart{.quantize = plan.quantize, .layout = layout, .stage = worker.stage, .rank = worker.rank};
  }
  return workers;
}

std::vector<bool> Keeps(const Plan& plan) {
  std::vector<bool> keeps;
  for (const PlannedWorker& worker : plan.workers) keeps.push_back(worker.keeps);
  return keeps;
}

TEST(PlannerTest, SurvivorsKeepTheirPlaces) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(Worker("w" + std::to_string(i), "h", 32));
  const auto first = MakePlan(config, kBF16, workers, {});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(Keeps(*first), ElementsAre(false, false, false, false));
  // The first is lost and another comes, last.
  std::vector<WorkerInventory> left = AfterLoading(workers, *first, 0);
  left.erase(left.begin());
  left.push_back(Worker("new", "h", 32));
  const auto second = MakePlan(config, kBF16, left, {});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->layout, first->layout);
  EXPECT_THAT(Order(*second), ElementsAre(3, 0, 1, 2));
  EXPECT_THAT(Keeps(*second), ElementsAre(false, true, true, true));
  const auto rounded = MakePlan(config, kBF16, left, {.quantize = Quantize::kInt8});
  EXPECT_THAT(Keeps(*rounded), ElementsAre(false, false, false, false)) << "what they hold is not rounded";
}

TEST(PlannerTest, AWholeClusterKeepsItsPlacesInWhateverOrderItJoinsAgain) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a0", "a", 24), Worker("a1", "a", 24),
                                                Worker("b", "b", 24)};
  const auto first = MakePlan(config, kBF16, workers, {});
  std::vector<WorkerInventory> again = AfterLoading(workers, *first, 3);
  std::swap(again[0], again[2]);
  const auto second = MakePlan(config, kBF16, again, {});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->layout, first->layout);
  EXPECT_THAT(Keeps(*second), ElementsAre(true, true, true));
  // Unless something else is asked for now.
  const auto stages = MakePlan(config, kBF16, again, {.stages = 3});
  EXPECT_THAT(Degrees(*stages), ElementsAre(1, 1, 1));
}

TEST(PlannerTest, OnlyALayoutThatIsATenthFasterTakesTheHeldOnesPlace) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers = {Worker("a", "a", 32, 20), Worker("b", "b", 32, 20)};
  const auto even = MakePlan(config, kBF16, workers, {});
  workers = AfterLoading(workers, *even, 2);
  workers[1].read_bytes_per_second = 21e9;
  const auto same = MakePlan(config, kBF16, workers, {});
  EXPECT_EQ(same->layout, even->layout);
  EXPECT_THAT(Keeps(*same), ElementsAre(true, true));
  workers[1].read_bytes_per_second = 40e9;
  const auto moved = MakePlan(config, kBF16, workers, {});
  EXPECT_GT(moved->layout.stages[1].layers.size(), 18);
  EXPECT_GT(moved->pipeline_tokens_per_second, 1.1 * even->pipeline_tokens_per_second);
}

TEST(PlannerTest, AHeldLayoutThatNoLongerFitsOrIsNonsenseIsPassedOver) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers = {Worker("a", "a", 32), Worker("b", "b", 32)};
  const auto even = MakePlan(config, kBF16, workers, {});
  workers = AfterLoading(workers, *even, 2);
  std::vector<WorkerInventory> small = workers;
  small[0].memory_bytes = 6 * kGiB;
  const auto smaller = MakePlan(config, kBF16, small, {});
  ASSERT_TRUE(smaller.ok()) << smaller.status();
  EXPECT_LT(smaller->layout.stages[0].layers.size(), 13);
  Layout nonsense = even->layout;
  nonsense.stages[1].layers = {1000, 1001};
  nonsense.stages.push_back(nonsense.stages[1]);
  for (WorkerInventory& worker : workers) worker.held->layout = std::make_shared<const Layout>(nonsense);
  EXPECT_EQ(MakePlan(config, kBF16, workers, {})->layout, even->layout);
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.layout = nonsense}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PlannerTest, StagesOnOneHostShareItsMemory) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h", 20), Worker("b", "h", 20)};
  const auto plan = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16, .stages = 2});
  ASSERT_TRUE(plan.ok()) << plan.status();
  int64_t used = 0;
  for (const PlannedWorker& worker : plan->workers) {
    used += worker.weight_bytes + worker.activation_bytes + worker.kv_bytes;
  }
  EXPECT_LE(used, static_cast<int64_t>(20 * 0.9 * kGiB));
}

TEST(PlannerTest, WhatDoesNotFitIsRefusedWithTheArithmetic) {
  const ModelConfig config = Model("llama-13b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h1", 12), Worker("b", "h2", 12)};
  const absl::Status refused = MakePlan(config, kBF16, workers, {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("host h2: 12.0 GiB free, 10.8 GiB usable"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("too much"));
  EXPECT_TRUE(MakePlan(config, kBF16, workers, {.quantize = Quantize::kInt8}).ok());
}

TEST(PlannerTest, KernelLevelIsTheHighestThatAllHave) {
  const ModelConfig config = Model("llama-1.1b");
  std::vector<WorkerInventory> workers = {Worker("a", "h", 16), Worker("b", "h", 16)};
  workers[0].kernel_levels.push_back("avx512");
  EXPECT_EQ(MakePlan(config, kBF16, workers, {})->KernelLevelText(), "avx2");
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.kernel_levels = {"portable"}})->KernelLevelText(), "portable");
  const absl::Status refused = MakePlan(config, kBF16, workers, {.kernel_levels = {"avx512"}}).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("worker b cannot run kernel level avx512"));
  workers[1].kernel_levels = {"sve"};
  EXPECT_EQ(MakePlan(config, kBF16, workers, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

WorkerInventory Gpu(const std::string& name, const std::string& host, const std::string& uuid, int64_t gib) {
  WorkerInventory worker = Worker(name, host, /*gib=*/64, /*gigabytes_per_second=*/3000);
  worker.kernel_levels = {"cuda_sm90"};
  worker.gpu = {.name = "H100", .uuid = uuid, .memory_bytes = gib * kGiB, .free_bytes = gib * kGiB};
  return worker;
}

TEST(PlannerTest, AGpuHasMemoryOfItsOwn) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Gpu("a", "h", "card-1", 24), Gpu("b", "h", "card-2", 24)};
  const PlannerOptions options{.kv_type = DType::kBF16, .kv_blocks_max = 1 << 20};
  const auto plan = MakePlan(config, kBF16, workers, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(Degrees(*plan), ElementsAre(2));
  EXPECT_THAT(plan->kernel_levels, ElementsAre("cuda_sm90"));
  EXPECT_THAT(plan->warnings, ::testing::IsEmpty());
  EXPECT_THAT(plan->kv_bound_by, HasSubstr("the memory of H100 card-"));
  const auto usable = static_cast<int64_t>(24 * 0.9 * kGiB);
  for (const PlannedWorker& worker : plan->workers) {
    const int64_t used = worker.weight_bytes + worker.activation_bytes + worker.kv_bytes;
    EXPECT_LE(used, usable);
    EXPECT_GT(used, usable - 2 * worker.kv_block_bytes) << "what is free is used";
  }
  EXPECT_THAT(plan->arithmetic, HasSubstr("H100 card-1 of host h: 24.0 GiB free, 21.6 GiB usable"));
  PlannerOptions half = options;
  half.device_memory_share = 0.5;
  EXPECT_LT(MakePlan(config, kBF16, workers, half)->kv_blocks, plan->kv_blocks / 2);
  // Of the limit that was asked for, not of memory, where that is less.
  EXPECT_EQ(MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16, .kv_blocks_max = 100})->kv_bound_by,
            "the limit of KV blocks");
}

TEST(PlannerTest, WorkersOnOneCardShareItsMemoryAndAWarningSaysSo) {
  const ModelConfig config = Model("llama-7b");
  const std::vector<WorkerInventory> workers = {Gpu("a", "h", "card", 18), Gpu("b", "h", "card", 17)};
  for (const int stages : {1, 2}) {
    const auto plan = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16, .stages = stages});
    ASSERT_TRUE(plan.ok()) << plan.status();
    int64_t used = 0;
    for (const PlannedWorker& worker : plan->workers)
      used += worker.weight_bytes + worker.activation_bytes + worker.kv_bytes;
    EXPECT_LE(used, static_cast<int64_t>(17 * 0.9 * kGiB));
    EXPECT_THAT(plan->warnings, ElementsAre(HasSubstr("2 workers share the memory and the speed of H100")));
  }
  EXPECT_THAT(std::string(MakePlan(config, kBF16, {Gpu("a", "h", "card", 8), Gpu("b", "h", "card", 8)}, {})
                              .status()
                              .message()),
              HasSubstr("too much"));
}

TEST(PlannerTest, TheHostOfAGpuNeedsRoomForItsProcess) {
  std::vector<WorkerInventory> workers = {Gpu("a", "h", "card", 80)};
  workers[0].memory_bytes = kGiB / 4;
  const absl::Status refused = MakePlan(Model("llama-1.1b"), kBF16, workers, {}).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("host h: 256.0 MiB free"));
}

TEST(PlannerTest, DeviceClassesMixOnlyWhenAsked) {
  const ModelConfig config = Model("llama-7b");
  // In turns, so that neighbours in the line are never alike.
  const std::vector<WorkerInventory> workers = {Gpu("g1", "h", "card-1", 80), Worker("c1", "h", 64),
                                                Gpu("g2", "h", "card-2", 80), Worker("c2", "h", 64)};
  const absl::Status refused = MakePlan(config, kBF16, workers, {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("g1 (cuda_sm90) and c1 (cpu) compute different bits"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--mix-devices"));

  const auto plan = MakePlan(config, kBF16, workers, {.mix_devices = true});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(Degrees(*plan), ElementsAre(2, 2));
  EXPECT_THAT(Order(*plan), ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(plan->kernel_levels, ElementsAre("cuda_sm90", "avx2"));
  EXPECT_EQ(plan->KernelLevelText(), "cuda_sm90, avx2");
  EXPECT_EQ(plan->numeric(1).kernel_level, "avx2");
  // 3000 GB/s beside 20: the GPUs get nearly all layers.
  EXPECT_GE(plan->layout.stages[0].layers.size(), 30);
  // A level that is asked for binds those who know it.
  EXPECT_THAT(
      MakePlan(config, kBF16, workers, {.kernel_levels = {"portable"}, .mix_devices = true})->kernel_levels,
      ElementsAre("cuda_sm90", "portable"));
  const auto four = MakePlan(config, kBF16, workers, {.mix_devices = true, .stages = 4});
  EXPECT_THAT(four->kernel_levels, ElementsAre("cuda_sm90", "cuda_sm90", "avx2", "avx2"));
  EXPECT_THAT(
      std::string(MakePlan(config, kBF16, workers, {.mix_devices = true, .ranks = 3}).status().message()),
      HasSubstr("the ranks of a stage share one device class"));
}

// GPUs that round differently are as little alike as GPUs and CPUs.
TEST(PlannerTest, GpusOfTwoNumericClassesMixOnlyWhenAsked) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers = {Gpu("h100", "h", "card-1", 80), Gpu("a100", "h", "card-2", 80)};
  workers[1].kernel_levels = {"cuda_sm80"};
  const absl::Status refused = MakePlan(config, kBF16, workers, {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("h100 (cuda_sm90) and a100 (cuda_sm80) compute different bits"));
  const auto plan = MakePlan(config, kBF16, workers, {.mix_devices = true});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(Degrees(*plan), ElementsAre(1, 1)) << "never ranks of one stage";
  EXPECT_THAT(plan->kernel_levels, ElementsAre("cuda_sm90", "cuda_sm80"));
  EXPECT_FALSE(MakePlan(config, kBF16, workers, {.mix_devices = true, .ranks = 2}).ok());
  // Alone, each is a cluster of its own class.
  for (const WorkerInventory& worker : workers)
    EXPECT_THAT(MakePlan(config, kBF16, {worker}, {})->kernel_levels, worker.kernel_levels);
}

TEST(PlannerTest, BatchesAreBoundByReadingAndThenByArithmetic) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers = {Worker("a", "a", 32)};
  EXPECT_TRUE(MakePlan(config, kBF16, workers, {})->batch_rates.empty());  // nobody has measured it
  workers[0].arithmetic.floats = 400e9;
  const auto plan = MakePlan(config, kBF16, workers, {});
  ASSERT_EQ(plan->batch_rates.size(), 2u);
  // A step reads 13.2 GB at 20 GB/s, 0.66 s; a token takes 13.2 billion operations, 33 ms.
  EXPECT_EQ(plan->batch_rates[0].sequences, 16);
  EXPECT_NEAR(plan->batch_rates[0].tokens_per_second, 16 * plan->decode_tokens_per_second, 1e-6);
  EXPECT_EQ(plan->batch_rates[0].bound_by, "memory bandwidth of worker a");
  EXPECT_EQ(plan->batch_rates[1].sequences, 64);
  EXPECT_NEAR(plan->batch_rates[1].tokens_per_second, 30.3, 0.1);
  EXPECT_EQ(plan->batch_rates[1].bound_by, "arithmetic of worker a");
  // Quantised weights are multiplied in integers.
  EXPECT_TRUE(MakePlan(config, kBF16, workers, {.quantize = Quantize::kInt8})->batch_rates.empty());
}

TEST(PlannerTest, BatchesFillThePipelineUnlessADriveBinds) {
  const ModelConfig config = Model("llama-7b");
  std::vector<WorkerInventory> workers = {Worker("a", "a", 32), Worker("b", "b", 32)};
  for (WorkerInventory& worker : workers) worker.arithmetic.floats = 400e9;
  const auto pipeline = MakePlan(config, kBF16, workers, {});
  EXPECT_THAT(Degrees(*pipeline), ElementsAre(1, 1));
  // 32 in each half, of which one has the head.
  EXPECT_NEAR(pipeline->batch_rates[1].tokens_per_second, 2 * 30.3, 2);
  for (WorkerInventory& worker : workers) {
    worker.memory_bytes = 4 * kGiB;
    worker.drive_bytes_per_second = 1e9;
  }
  const auto streamed = MakePlan(config, kBF16, workers, {});
  ASSERT_TRUE(streamed.ok()) << streamed.status();
  EXPECT_TRUE(streamed->drive_bound);
  EXPECT_NEAR(streamed->batch_rates[0].tokens_per_second, 16 * streamed->decode_tokens_per_second, 0.1)
      << "but for what rows take between hosts";
  EXPECT_THAT(streamed->batch_rates[0].bound_by, HasSubstr("the drive of worker "));
}

TEST(PlannerTest, BadInventoriesAreRefused) {
  const ModelConfig config = Model("llama-1.1b");
  EXPECT_EQ(MakePlan(config, kBF16, {}, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(MakePlan(config, kBF16, {Worker("a", "h", 16, /*gigabytes_per_second=*/0)}, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(PlannerTest, MoreWorkersThanSlicesOrLayers) {
  const ModelConfig config = Model("llama");  // 4 heads, 2 layers
  std::vector<WorkerInventory> workers;
  for (int i = 0; i < 7; ++i) workers.push_back(Worker("w" + std::to_string(i), "h", 4));
  const auto plan = MakePlan(config, kBF16, workers, {.context_tokens = 512});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(Degrees(*plan), ElementsAre(3, 4));
  EXPECT_EQ(plan->bound_by, "link latency");
  for (int i = 0; i < 7; ++i) workers[i].host = "h" + std::to_string(i);
  EXPECT_THAT(Degrees(*MakePlan(config, kBF16, workers, {})), ElementsAre(1, 1));
}

}  // namespace
}  // namespace bellwether
