#include "cli/plan.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/shard_size.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

TEST(ParseWorkerTest, Fields) {
  const auto worker = ParseWorker("name=a,host=h,memory=1.5GiB,threads=8,bandwidth=40GB/s", 3);
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->name, "a");
  EXPECT_EQ(worker->host, "h");
  EXPECT_EQ(worker->memory_bytes, int64_t{3} << 29);
  EXPECT_EQ(worker->threads, 8);
  EXPECT_EQ(worker->read_bytes_per_second, 40e9);
  EXPECT_EQ(worker->arithmetic.floats, 0);
  EXPECT_EQ(ParseWorker("memory=1e9,gflops=200", 3)->arithmetic.int8, 200e9);
  for (const char* gflops : {"0", "-1", "nan", "1e7", "", "200G"}) {
    const auto refused = ParseWorker(absl::StrCat("memory=1e9,gflops=", gflops), 3);
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("gflops= is a number")) << gflops;
  }
  EXPECT_EQ(ParseWorker("memory=1e9", 3)->name, "worker-3");
  EXPECT_EQ(ParseWorker("memory=1e9", 3)->memory_bytes, 1'000'000'000);
  EXPECT_EQ(ParseWorker("memory=1000TB", 0)->memory_bytes, 1'000'000'000'000'000);
}

TEST(ParseWorkerTest, AGpuHasMemoryAndALevelOfItsOwn) {
  const auto worker = ParseWorker("memory=64GB,copy=50GB/s,gpu=80GB,bandwidth=3TB/s", 2);
  ASSERT_TRUE(worker.ok()) << worker.status();
  ASSERT_TRUE(worker->gpu.has_value());
  EXPECT_EQ(worker->gpu->free_bytes, 80'000'000'000);
  EXPECT_EQ(worker->gpu->copy_bytes_per_second, 50e9);
  EXPECT_EQ(worker->memory_bytes, 64'000'000'000);
  EXPECT_THAT(worker->kernel_levels, ::testing::ElementsAre("cuda_sm90"));
  EXPECT_EQ(ParseWorker("memory=64GB,gpu=80GB", 0)->read_bytes_per_second, 1e12) << "not that of a CPU";
  EXPECT_EQ(ParseWorker("memory=64GB", 0)->read_bytes_per_second, 20e9);
  EXPECT_NE(worker->gpu->uuid, ParseWorker("memory=64GB,gpu=80GB", 3)->gpu->uuid);
}

TEST(RunPlanTest, GpusAndCpusNeedToBeAskedFor) {
  PlanOptions options{.model = "random:llama:fp32", .workers = {"memory=4GB", "memory=4GB,gpu=1GB"}};
  EXPECT_THAT(std::string(RunPlan(options).message()), HasSubstr("--mix-devices"));
  options.mix_devices = true;
  EXPECT_TRUE(RunPlan(options).ok());
}

TEST(ParseWorkerTest, SizesOutOfRangeAreRefusedWithTheRange) {
  for (const char* size : {"1e30", "1e999", "1001TB", "0", "0.5", "1e16GB"}) {
    for (const char* field : {"memory=", "memory=1GB,bandwidth="}) {
      const auto worker = ParseWorker(absl::StrCat(field, size), 0);
      EXPECT_THAT(std::string(worker.status().message()), HasSubstr("1B to 1000TB")) << field << size;
    }
  }
}

TEST(ParseWorkerTest, WhatIsNoSizeIsRefused) {
  for (const char* size : {"", "GB", "-1GB", "1XB", "nan", "inf", "1e", "1.2.3GB"}) {
    const auto worker = ParseWorker(absl::StrCat("memory=", size), 0);
    EXPECT_THAT(std::string(worker.status().message()), HasSubstr("is not a size")) << size;
  }
  EXPECT_THAT(std::string(ParseWorker("threads=2", 0).status().message()), HasSubstr("needs memory="));
  EXPECT_THAT(std::string(ParseWorker("memory=1GB,threads=0", 0).status().message()), HasSubstr("threads=0"));
}

TEST(RunPlanTest, RefusesTheContextThatACoordinatorRefuses) {
  PlanOptions options{.model = "random:llama:fp32", .context_tokens = 100000, .workers = {"memory=1GB"}};
  const absl::Status status = RunPlan(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model knows positions up to 512"));
}

// A 7B in bf16 is 13.5 GB.
class PlanWithMoreTest : public testing::Test {
 protected:
  PlanWithMoreTest() : checkpoint_(*Checkpoint::Open("random:llama-7b:bf16", {})), formats_(*checkpoint_) {}
  WhatMoreBuys With(const std::string& worker) {
    const std::vector<WorkerInventory> workers = {*ParseWorker(worker, 0)};
    const auto plan = MakePlan(checkpoint_->config(), formats_, workers, options_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    tokens_per_second_ = plan->decode_tokens_per_second;
    return PlanWithMore(checkpoint_->config(), formats_, workers, options_, *plan);
  }
  std::unique_ptr<Checkpoint> checkpoint_;
  CheckpointFormats formats_;
  PlannerOptions options_{.plan_for_batch = 1};
  double tokens_per_second_ = 0;
};

TEST_F(PlanWithMoreTest, MemoryAndAMachineAreWorthWhatTheyNeedNotRead) {
  const WhatMoreBuys more = With("memory=8GiB,drive=1GB/s,bandwidth=100GB/s");
  ASSERT_TRUE(more.memory && more.machine);
  // Some 7 GB are streamed, of which 0.9 GiB less; a second machine holds nearly all of them.
  EXPECT_GT(*more.memory, 1.05 * tokens_per_second_);
  EXPECT_LT(*more.memory, 1.3 * tokens_per_second_);
  EXPECT_GT(*more.machine, 2 * tokens_per_second_);
}

TEST_F(PlanWithMoreTest, NothingWhereAllFitsAndNoMachineWhereTheirNumberIsGiven) {
  EXPECT_FALSE(With("memory=64GiB,drive=1GB/s").memory.has_value());
  options_.stages = 1;
  const WhatMoreBuys more = With("memory=8GiB,drive=1GB/s");
  EXPECT_TRUE(more.memory.has_value());
  EXPECT_FALSE(more.machine.has_value());
}

}  // namespace
}  // namespace bellwether
