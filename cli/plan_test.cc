#include "cli/plan.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

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
  EXPECT_EQ(ParseWorker("memory=1e9", 3)->name, "worker-3");
  EXPECT_EQ(ParseWorker("memory=1e9", 3)->memory_bytes, 1'000'000'000);
  EXPECT_EQ(ParseWorker("memory=1000TB", 0)->memory_bytes, 1'000'000'000'000'000);
}

TEST(ParseWorkerTest, AGpuHasMemoryAndALevelOfItsOwn) {
  const auto worker = ParseWorker("memory=64GB,gpu=80GB,bandwidth=3TB/s", 2);
  ASSERT_TRUE(worker.ok()) << worker.status();
  ASSERT_TRUE(worker->gpu.has_value());
  EXPECT_EQ(worker->gpu->free_bytes, 80'000'000'000);
  EXPECT_EQ(worker->memory_bytes, 64'000'000'000);
  EXPECT_THAT(worker->kernel_levels, ::testing::ElementsAre("cuda_sm90"));
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

}  // namespace
}  // namespace bellwether
