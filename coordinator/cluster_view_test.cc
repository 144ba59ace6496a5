#include "coordinator/cluster_view.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// One stage with as many ranks as there are workers.
absl::StatusOr<Plan> PlanRanks(absl::Span<const WorkerInventory> workers, const std::string& kernel_level) {
  Plan plan;
  plan.layout.stages.resize(1);
  for (size_t i = 0; i < workers.size(); ++i) {
    plan.layout.stages[0].ranks.emplace_back();
    plan.workers.push_back({.inventory = i, .stage = 0, .rank = static_cast<int>(i)});
  }
  plan.numeric.kernel_level = kernel_level.empty() ? "avx2" : kernel_level;
  plan.kv_blocks = 8;
  return plan;
}

JoiningWorker Joining(const std::string& name) {
  return {.protocol_version = kClusterProtocolVersion,
          .build_id = "build",
          .inventory = {.name = name, .host = "h", .kernel_levels = {"portable", "avx2"}},
          .model_id = "model"};
}

class ClusterViewTest : public ::testing::Test {
 protected:
  static ClusterViewOptions Options() {
    return {.workers_wanted = 2,
            .build_id = "build",
            .model_id = "model",
            .model_name = "tiny",
            .step_deadline = absl::Seconds(10)};
  }

  void Send(const ClusterEvent& event) { actions_ = view_.Handle(event, now_); }
  void After(absl::Duration time, const ClusterEvent& event) {
    now_ += time;
    Send(event);
  }
  template <typename Action>
  std::vector<Action> All() const {
    std::vector<Action> found;
    for (const ClusterAction& action : actions_) {
      if (const Action* it = std::get_if<Action>(&action)) found.push_back(*it);
    }
    return found;
  }
  template <typename Action>
  bool Has() const {
    return !All<Action>().empty();
  }

  void Join(uint64_t id, const std::string& name) { Send(WorkerJoined{{id}, Joining(name)}); }
  void Beat(uint64_t id, WorkerProgress progress = {}) { Send(WorkerBeat{{id}, progress}); }
  // Workers 1 (a) and 2 (b) serve.
  void Serve() {
    Join(1, "a");
    Join(2, "b");
    ASSERT_TRUE(Has<AssignLayout>());
    epoch_ = All<AssignLayout>()[0].layout->epoch;
    Send(WorkerReady{{1}, epoch_});
    ASSERT_FALSE(Has<LayoutUp>());
    Send(WorkerReady{{2}, epoch_});
    ASSERT_TRUE(Has<LayoutUp>());
    ASSERT_TRUE(view_.serving());
  }
  std::string DownReason() const {
    const auto down = All<LayoutDown>();
    return down.empty() ? "" : std::string(down[0].reason.message());
  }

  absl::Duration now_ = absl::Seconds(100);
  ClusterView view_{Options(), PlanRanks};
  std::vector<ClusterAction> actions_;
  Epoch epoch_;
};

TEST_F(ClusterViewTest, WaitsForEnoughWorkersThenServes) {
  Join(1, "a");
  EXPECT_TRUE(Has<AcceptWorker>());
  EXPECT_FALSE(Has<AssignLayout>());
  EXPECT_THAT(All<ReportWaiting>().at(0).reason, HasSubstr("1 of 2"));
  Join(2, "b");
  const auto assigned = All<AssignLayout>();
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].layout->epoch.value, 1u);
  EXPECT_EQ(assigned[0].layout->members[1].worker.inventory.name, "b");
  EXPECT_EQ(assigned[0].layout->members[1].rank, 1);
  Send(WorkerReady{{1}, {1}});
  Send(WorkerReady{{1}, {1}});
  EXPECT_FALSE(view_.serving());
  Send(WorkerReady{{2}, {1}});
  EXPECT_TRUE(view_.serving());
}

TEST_F(ClusterViewTest, TellsHowFarLoadingIsInStepsOfTenPercent) {
  constexpr int64_t kMiB = 1 << 20;
  Join(1, "a");
  Join(2, "b");
  const Epoch epoch = All<AssignLayout>().at(0).layout->epoch;
  const auto loading = [epoch](int64_t loaded, int64_t total, Epoch of) {
    return WorkerProgress{.epoch = of, .state = "loading", .loaded_bytes = loaded, .total_bytes = total};
  };
  const auto told = [this] { return Has<ReportWaiting>() ? All<ReportWaiting>()[0].reason : ""; };
  Beat(1, loading(0, 0, epoch));
  EXPECT_EQ(told(), "");
  Beat(1, loading(512 * kMiB, 512 * kMiB, Epoch{epoch.value - 1}));
  EXPECT_EQ(told(), "") << "of an epoch that is over";
  Beat(1, {.epoch = epoch, .state = "step", .loaded_bytes = 512 * kMiB, .total_bytes = 512 * kMiB});
  EXPECT_EQ(told(), "") << "what is left from the last time";
  Beat(1, loading(60 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "workers are loading the model (epoch 1): 10 % of 512.0 MiB");
  Beat(2, loading(0, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "") << "less than before, as a second worker begins";
  Beat(2, loading(142 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "");
  Beat(2, loading(145 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "workers are loading the model (epoch 1): 20 % of 1.0 GiB");
  Send(WorkerReady{{1}, epoch});
  Beat(2, loading(256 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "workers are loading the model (epoch 1): 70 % of 1.0 GiB");
  Send(WorkerReady{{2}, epoch});
  EXPECT_TRUE(view_.serving());
  Beat(2, loading(512 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "");
}

TEST_F(ClusterViewTest, RefusesWithTheReason) {
  JoiningWorker worker = Joining("x");
  worker.protocol_version = 99;
  Send(WorkerJoined{{1}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("protocol version 99"));
  worker = Joining("x");
  worker.build_id = "other";
  Send(WorkerJoined{{2}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("build other"));
  worker = Joining("x");
  worker.model_id = "llama";
  Send(WorkerJoined{{3}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("llama"));
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("id model"));
  worker = Joining("x");
  worker.model_id = "";  // looks for the model later
  Send(WorkerJoined{{4}, worker});
  EXPECT_TRUE(Has<AcceptWorker>());
}

TEST_F(ClusterViewTest, TheKernelLevelIsFixedByTheFirstLayoutThatServes) {
  Serve();
  JoiningWorker weak = Joining("weak");
  weak.inventory.kernel_levels = {"portable"};
  Send(WorkerJoined{{3}, weak});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("avx2"));
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("portable"));
}

TEST_F(ClusterViewTest, ALostWorkerEndsTheEpochAndASecondOneBeginsTheNext) {
  Serve();
  Send(WorkerLost{{2}, absl::UnavailableError("connection closed")});
  EXPECT_THAT(DownReason(), HasSubstr("worker b (stage 0, rank 1) is lost: connection closed"));
  ASSERT_EQ(All<EndWorkerEpoch>().size(), 1u);
  EXPECT_EQ(All<EndWorkerEpoch>()[0].id.value, 1u);
  EXPECT_FALSE(view_.serving());
  Beat(1);
  Join(3, "c");
  const auto assigned = All<AssignLayout>();
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].layout->epoch.value, 2u);
  Send(WorkerReady{{1}, {1}});  // of the old epoch: means nothing
  Send(WorkerReady{{3}, {2}});
  EXPECT_FALSE(view_.serving());
  Send(WorkerReady{{1}, {2}});
  EXPECT_TRUE(view_.serving());
}

TEST_F(ClusterViewTest, EpochsGrowInAWorkersLifeAlsoUnderANewCoordinator) {
  JoiningWorker old = Joining("old");
  old.last_epoch = {7};
  Send(WorkerJoined{{1}, old});
  Join(2, "b");
  EXPECT_EQ(All<AssignLayout>().at(0).layout->epoch.value, 8u);
}

TEST_F(ClusterViewTest, ASpareTakesOverAtOnce) {
  Serve();
  Join(3, "spare");
  EXPECT_FALSE(Has<AssignLayout>());
  Send(WorkerLost{{1}, absl::UnavailableError("gone")});
  EXPECT_TRUE(Has<LayoutDown>());
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[1].worker.inventory.name, "spare");
}

TEST_F(ClusterViewTest, ASpareThatLeavesHurtsNobody) {
  Serve();
  Join(3, "spare");
  Send(WorkerLost{{3}, absl::UnavailableError("gone")});
  EXPECT_TRUE(view_.serving());
  EXPECT_FALSE(Has<EndWorkerEpoch>());
}

TEST_F(ClusterViewTest, NoHeartbeatForFourSecondsIsALostWorker) {
  Serve();
  for (int i = 0; i < 7; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1);
    Send(ClusterTick{});
    EXPECT_TRUE(view_.serving());
  }
  now_ += absl::Milliseconds(500);
  Beat(1);
  Send(ClusterTick{});
  EXPECT_FALSE(view_.serving());
  EXPECT_THAT(DownReason(), HasSubstr("worker b"));
  EXPECT_THAT(DownReason(), HasSubstr("no heartbeat for 4.0 s"));
  ASSERT_EQ(All<DropWorker>().size(), 1u);
  EXPECT_EQ(All<DropWorker>()[0].id.value, 2u);
}

TEST_F(ClusterViewTest, WhenTheCoordinatorItselfWasHeldUpNobodyIsToBlame) {
  Serve();
  Send(ClusterTick{});
  now_ += absl::Seconds(30);
  Send(ClusterTick{});
  EXPECT_TRUE(view_.serving());
  for (int i = 0; i < 7; ++i) {
    now_ += absl::Milliseconds(500);
    Send(ClusterTick{});
    EXPECT_TRUE(view_.serving()) << i;
  }
  now_ += absl::Milliseconds(600);
  Send(ClusterTick{});
  EXPECT_FALSE(view_.serving());
}

TEST_F(ClusterViewTest, AFailureBlamesTheWorkerOrItsPeer) {
  Serve();
  Send(WorkerFailed{{1}, epoch_, absl::InternalError("bad step"), ""});
  EXPECT_THAT(DownReason(), HasSubstr("worker a (stage 0, rank 0) failed: bad step"));
  EXPECT_EQ(All<EndWorkerEpoch>().size(), 2u);
  ASSERT_TRUE(Has<AssignLayout>());  // both are still there
  epoch_ = All<AssignLayout>()[0].layout->epoch;
  Send(WorkerReady{{1}, epoch_});
  Send(WorkerReady{{2}, epoch_});
  Send(WorkerFailed{{1}, epoch_, absl::UnavailableError("link closed"), "b"});
  EXPECT_THAT(DownReason(), HasSubstr("worker b (stage 0, rank 1) does not answer"));
  EXPECT_THAT(DownReason(), HasSubstr("link closed"));
}

// Whoever waits for the first epoch alone (a private cluster) need not wait for more of the same.
TEST_F(ClusterViewTest, AWorkerThatCannotLoadItsPartIsARefusal) {
  Join(1, "a");
  Join(2, "b");
  Send(WorkerFailed{{1}, {1}, absl::UnavailableError("link closed"), "b"});
  EXPECT_FALSE(All<ReportWaiting>().at(0).refused) << "b may be lost, or on its way";
  Beat(1);
  After(absl::Seconds(3), WorkerBeat{{2}, {}});
  epoch_ = All<AssignLayout>().at(0).layout->epoch;
  Send(WorkerFailed{{1}, epoch_, absl::ResourceExhaustedError("no memory"), ""});
  EXPECT_EQ(All<ReportWaiting>().at(0).reason, "worker a (stage 0, rank 0) failed: no memory");
  EXPECT_TRUE(All<ReportWaiting>().at(0).refused);
  Beat(1);
  After(absl::Seconds(3), WorkerBeat{{2}, {}});
  ASSERT_TRUE(Has<AssignLayout>()) << "a cluster of many owners tries again";
  EXPECT_FALSE(All<ReportWaiting>().at(0).refused);
  epoch_ = All<AssignLayout>().at(0).layout->epoch;
  Send(WorkerReady{{1}, epoch_});
  Send(WorkerReady{{2}, epoch_});
  Send(WorkerFailed{{1}, epoch_, absl::InternalError("bad step"), ""});
  EXPECT_FALSE(All<ReportWaiting>().at(0).refused);
}

// A worker started with the wrong --model-root was given the same part again in epoch after epoch, while a
// good spare waited.
TEST_F(ClusterViewTest, AWorkerWithoutTheModelLosesItsPlaceToASpare) {
  Join(1, "a");
  Join(2, "b");
  Join(3, "spare");
  Send(WorkerFailed{{1}, {1}, absl::NotFoundError("no such model"), ""});
  EXPECT_TRUE(Has<DropWorker>());
  Beat(3);
  After(absl::Seconds(3), WorkerBeat{{2}, {}});  // epochs that never served follow each other after a pause
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[0].worker.inventory.name, "b");
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[1].worker.inventory.name, "spare");
}

TEST_F(ClusterViewTest, AFailureOfAnOldEpochMeansNothing) {
  Serve();
  Send(WorkerFailed{{1}, {epoch_.value + 1}, absl::InternalError("late"), ""});
  EXPECT_TRUE(view_.serving());
  Send(EpochRejected{{epoch_.value + 1}, absl::InternalError("late")});
  EXPECT_TRUE(view_.serving());
  Send(EpochRejected{epoch_, absl::InternalError("nonsense")});
  EXPECT_FALSE(view_.serving());
}

TEST_F(ClusterViewTest, ANewcomersMemoryLacksWhatTheOthersOfItsHostHold) {
  JoiningWorker a = Joining("a"), b = Joining("b"), late = Joining("late");
  a.inventory.memory_bytes = b.inventory.memory_bytes = 1000;
  late.inventory.memory_bytes = 550;
  std::vector<int64_t> memory;
  ClusterView view(Options(), [&memory](absl::Span<const WorkerInventory> workers, const std::string& level) {
    memory.clear();
    for (const WorkerInventory& worker : workers) memory.push_back(worker.memory_bytes);
    return PlanRanks(workers, level);
  });
  view.Handle(WorkerJoined{{1}, a}, now_);
  view.Handle(WorkerJoined{{2}, b}, now_);
  view.Handle(WorkerReady{{1}, {1}, 400, 100}, now_);
  view.Handle(WorkerReady{{2}, {1}, 400, 100}, now_);
  view.Handle(WorkerLost{{2}, absl::UnavailableError("killed")}, now_);
  view.Handle(WorkerJoined{{3}, late}, now_);
  EXPECT_THAT(memory, ::testing::ElementsAre(1000, 950));
  view.Handle(WorkerReady{{1}, {2}, 400, 100}, now_);
  view.Handle(WorkerReady{{3}, {2}, 400, 100}, now_);
  late.inventory.memory_bytes = 300;
  view.Handle(WorkerJoined{{4}, late}, now_);
  view.Handle(WorkerLost{{1}, absl::UnavailableError("killed")}, now_);
  EXPECT_THAT(memory, ::testing::ElementsAre(950, 1000));
}

TEST_F(ClusterViewTest, AHungExecutorIsFoundByItsProgress) {
  Serve();
  const absl::Duration sent = now_;
  for (int i = 0; i < 25; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = epoch_, .state = "step", .step = {4}, .layer = 2, .waiting_for = "b", .counter = 9});
    Beat(2, {.epoch = epoch_, .state = "step", .step = {4}, .layer = 1, .counter = 5});
    Send(ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
    if (Has<LayoutDown>()) break;
  }
  EXPECT_GE(now_ - sent, absl::Seconds(10));
  EXPECT_LE(now_ - sent, absl::Seconds(11));
  EXPECT_THAT(DownReason(), HasSubstr("worker b"));
  EXPECT_THAT(DownReason(), HasSubstr("step 4, layer 1"));
  EXPECT_EQ(All<DropWorker>()[0].id.value, 2u);
}

TEST_F(ClusterViewTest, IdleOrSlowButMovingWorkersAreNotHung) {
  Serve();
  const absl::Duration sent = now_;
  for (int i = 0; i < 60; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = epoch_, .state = "step", .waiting_for = "b"});
    Beat(2, {.epoch = epoch_, .state = "step", .counter = static_cast<uint64_t>(i / 10)});
    Send(ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
    ASSERT_TRUE(view_.serving()) << i;
  }
  for (int i = 0; i < 60; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = epoch_, .state = "ready"});
    Beat(2, {.epoch = epoch_, .state = "ready"});
    Send(ClusterTick{.steps_outstanding = 0, .last_step_change = sent});
    ASSERT_TRUE(view_.serving()) << i;
  }
}

TEST_F(ClusterViewTest, AWorkerStuckWhileLoadingIsDropped) {
  Join(1, "a");
  Join(2, "b");
  bool dropped = false;
  for (int i = 0; i < 400 && !dropped; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = {1}, .state = "linking"});
    Beat(2, {.epoch = {1}, .state = "loading", .loaded_bytes = 7});
    Send(ClusterTick{});
    dropped = Has<DropWorker>();
  }
  ASSERT_TRUE(dropped);
  EXPECT_EQ(All<DropWorker>()[0].id.value, 2u);
  EXPECT_EQ(All<EndWorkerEpoch>()[0].id.value, 1u);
}

TEST_F(ClusterViewTest, EpochsThatNeverServeFollowEachOtherMoreAndMoreSlowly) {
  Join(1, "a");
  Join(2, "b");
  int epochs = 1;
  Send(WorkerFailed{{1}, {1}, absl::ResourceExhaustedError("no memory"), ""});
  EXPECT_FALSE(Has<AssignLayout>());
  for (int i = 0; i < 200; ++i) {
    now_ += absl::Milliseconds(100);
    for (const ClusterEvent& event : {ClusterEvent(WorkerBeat{{1}, {}}), ClusterEvent(WorkerBeat{{2}, {}})}) {
      Send(event);
      if (!Has<AssignLayout>()) continue;
      ++epochs;
      Send(WorkerFailed{
          {1}, All<AssignLayout>()[0].layout->epoch, absl::ResourceExhaustedError("no memory"), ""});
    }
  }
  EXPECT_GE(epochs, 4);
  EXPECT_LE(epochs, 10);
}

TEST_F(ClusterViewTest, ARefusedPlanIsToldAndTriedAgainWhenSomebodyComes) {
  int calls = 0;
  ClusterView view(Options(),
                   [&calls](absl::Span<const WorkerInventory>, const std::string&) -> absl::StatusOr<Plan> {
                     ++calls;
                     return absl::FailedPreconditionError("does not fit: 9 GiB of 8");
                   });
  view.Handle(WorkerJoined{{1}, Joining("a")}, now_);
  actions_ = view.Handle(WorkerJoined{{2}, Joining("b")}, now_);
  EXPECT_EQ(All<ReportWaiting>().at(0).reason, "does not fit: 9 GiB of 8");
  EXPECT_TRUE(All<ReportWaiting>().at(0).refused);
  view.Handle(ClusterTick{}, now_ + absl::Seconds(1));
  EXPECT_EQ(calls, 1);
  view.Handle(WorkerJoined{{3}, Joining("c")}, now_ + absl::Seconds(1));
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace bellwether
