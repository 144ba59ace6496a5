// Workers of several device classes in one cluster (coordinator/device_class.h).

#include <memory>
#include <string>
#include <vector>

#include "coordinator/testing/cluster_view_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using ClusterViewDevicesTest = ClusterViewTest;

JoiningWorker JoiningGpu(const std::string& name) {
  JoiningWorker worker = Joining(name);
  worker.inventory.kernel_levels = {"cuda_sm90"};
  worker.inventory.gpu = {.name = "H100", .uuid = name, .memory_bytes = 100, .free_bytes = 90};
  return worker;
}

TEST_F(ClusterViewDevicesTest, AWorkerOfAnotherDeviceClassIsASpareThatIsToldWhy) {
  Serve();
  Send(WorkerJoined{{3}, JoiningGpu("gpu")});
  EXPECT_TRUE(Has<AcceptWorker>());
  ASSERT_EQ(All<Warn>().size(), 1u);
  EXPECT_THAT(All<Warn>()[0].text, HasSubstr("worker gpu (cuda_sm90) computes other bits"));
  EXPECT_THAT(All<Warn>()[0].text, HasSubstr("--mix-devices"));
  Send(WorkerLost{{1}, absl::UnavailableError("gone")});
  EXPECT_FALSE(Has<AssignLayout>()) << "it takes nobody's place";
  EXPECT_THAT(All<ReportWaiting>().at(1).reason,
              HasSubstr("1 of 2 have joined, and 1 of another device class"));
  Join(4, "d");
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_FALSE(Has<Warn>()) << "told once";
}

TEST_F(ClusterViewDevicesTest, TheFirstClassWithEnoughWorkersServes) {
  Send(WorkerJoined{{1}, Joining("a")});
  Send(WorkerJoined{{2}, JoiningGpu("b")});
  EXPECT_FALSE(Has<AssignLayout>());
  Send(WorkerJoined{{3}, JoiningGpu("c")});
  const auto assigned = All<AssignLayout>();
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].layout->members[0].worker.inventory.name, "b");
  EXPECT_THAT(All<Warn>().at(0).text, HasSubstr("worker a (cpu)"));
}

// A stage of one layer for each worker.
absl::StatusOr<Plan> PlanStages(absl::Span<const WorkerInventory> workers, const std::vector<std::string>&) {
  Plan plan{.kv_blocks = 8};
  for (size_t i = 0; i < workers.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    plan.layout.stages.push_back({{layer, layer + 1}, std::vector<RankLayout>(1)});
    plan.workers.push_back({.inventory = i, .stage = static_cast<int>(i)});
    plan.kernel_levels.push_back(workers[i].kernel_levels.back());
  }
  return plan;
}

TEST_F(ClusterViewDevicesTest, WhereClassesMixAWarningTellsWhenAnotherOneComputesALayer) {
  ClusterViewOptions options = Options();
  options.mix_devices = true;
  view_ = std::make_unique<ClusterView>(options, PlanStages);
  Send(WorkerJoined{{1}, Joining("a")});
  Send(WorkerJoined{{2}, JoiningGpu("b")});
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_FALSE(Has<Warn>());
  Send(WorkerReady{{1}, {1}});
  Send(WorkerReady{{2}, {1}});
  ASSERT_TRUE(view_->serving());
  Send(WorkerJoined{{3}, JoiningGpu("c")});
  EXPECT_FALSE(Has<Warn>()) << "a spare like any other";
  // Alike: nothing to tell. Then a CPU in a GPU's place.
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_FALSE(Has<Warn>());
  EXPECT_FALSE(All<AssignLayout>()[0].layout->other_bits);
  Send(WorkerReady{{1}, {2}});
  Send(WorkerReady{{3}, {2}});
  Send(WorkerJoined{{4}, Joining("d")});
  Send(WorkerLost{{3}, absl::UnavailableError("gone")});
  ASSERT_EQ(All<Warn>().size(), 1u);
  EXPECT_THAT(All<Warn>()[0].text, HasSubstr("answers may differ from earlier ones"));
  EXPECT_TRUE(All<AssignLayout>()[0].layout->other_bits);
  EXPECT_THAT(All<Warn>()[0].text,
              HasSubstr("kernel level avx2 computes layer 1 from now on, where cuda_sm90"));
}

TEST_F(ClusterViewDevicesTest, WhatAGpuHasFreeIsCountedWithWhatItsWorkersHold) {
  std::vector<int64_t> free;
  const auto plan = [&free](absl::Span<const WorkerInventory> workers,
                            const std::vector<std::string>& levels) {
    free.clear();
    for (const WorkerInventory& worker : workers) free.push_back(worker.gpu->free_bytes);
    return PlanRanks(workers, levels);
  };
  view_ = std::make_unique<ClusterView>(Options(), plan);
  JoiningWorker a = JoiningGpu("a"), b = JoiningGpu("b");
  a.inventory.gpu->uuid = b.inventory.gpu->uuid = "card";
  Send(WorkerJoined{{1}, a});
  Send(WorkerJoined{{2}, b});
  Send(WorkerReady{{1}, {1}, /*weight_bytes=*/30, /*kv_bytes=*/10});
  Send(WorkerReady{{2}, {1}, /*weight_bytes=*/30, /*kv_bytes=*/10});
  EXPECT_THAT(free, ::testing::ElementsAre(90, 90));
  // It comes back, and has looked while the other one still held weights and KV cache.
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  b.inventory.gpu->free_bytes = 48;
  Send(WorkerJoined{{3}, b});
  EXPECT_THAT(free, ::testing::ElementsAre(90, 88));
}

}  // namespace
}  // namespace bellwether
