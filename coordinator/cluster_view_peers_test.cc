// Workers that lie, stall or want to leave.

#include "coordinator/cluster_view.h"
#include "coordinator/testing/cluster_view_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// A made-up epoch near the end of the numbers made all real workers be refused for good, once the coordinator
// had been restarted.
TEST_F(ClusterViewTest, OneJoinCannotUseUpTheEpochs) {
  JoiningWorker fake = Joining("fake");
  fake.last_epoch = {(uint64_t{1} << 62) - 1};
  Send(WorkerJoined{{9}, fake});
  ASSERT_TRUE(Has<RefuseWorker>());
  EXPECT_TRUE(All<RefuseWorker>()[0].start_afresh) << "not for good: it may have come by it honestly";
  Serve();
  EXPECT_EQ(epoch_.value, 1u);
}

// Numbers that grow for ever kept everyone waiting for ever.
TEST_F(ClusterViewTest, LoadingThatOnlyCountsUpIsGivenUp) {
  Join(1, "a");
  Join(2, "liar");
  const Epoch epoch = All<AssignLayout>().at(0).layout->epoch;
  Send(WorkerReady{{1}, epoch});
  int64_t bytes = 0;
  int seconds = 0;
  for (; seconds < 1000 && !Has<DropWorker>(); ++seconds) {
    Beat(1, {.epoch = epoch, .state = WorkerState::kReady});
    ++bytes;
    Beat(2, {.epoch = epoch,
             .state = bytes % 2 == 0 ? WorkerState::kLoading : WorkerState::kJoined,
             .loaded_bytes = bytes,
             .total_bytes = (int64_t{1} << 50) + bytes,
             .counter = static_cast<uint64_t>(bytes)});
    After(absl::Seconds(1), ClusterTick{});
  }
  ASSERT_TRUE(Has<DropWorker>());
  EXPECT_EQ(All<DropWorker>()[0].id.value, 2u);
  EXPECT_NEAR(seconds, absl::ToDoubleSeconds(kLoadTimeout), 2);
}

TEST_F(ClusterViewTest, ASlowLoadThatGetsOnIsNotGivenUp) {
  Join(1, "a");
  Join(2, "slow");
  const Epoch epoch = All<AssignLayout>().at(0).layout->epoch;
  Send(WorkerReady{{1}, epoch});
  constexpr int64_t kTotal = int64_t{100} << 30;
  constexpr int kSeconds = 30000;  // 3.6 MB/s
  for (int second = 0; second < kSeconds; ++second) {
    Beat(1, {.epoch = epoch, .state = WorkerState::kReady});
    Beat(2, {.epoch = epoch,
             .state = WorkerState::kLoading,
             .loaded_bytes = kTotal / kSeconds * second,
             .total_bytes = kTotal});
    After(absl::Seconds(1), ClusterTick{});
    ASSERT_FALSE(Has<DropWorker>()) << second;
  }
}

// It said that it got on, over and over, and no request ever ended.
TEST_F(ClusterViewTest, AWorkerThatBeatsButNeverAnswersIsDropped) {
  Serve();
  const absl::Duration sent = now_;
  int seconds = 0;
  for (; seconds < 1000 && !Has<DropWorker>(); ++seconds) {
    Beat(1, {.epoch = epoch_, .state = WorkerState::kStep, .step = {1}, .waiting_for = "b"});
    Beat(2, {.epoch = epoch_,
             .state = WorkerState::kStep,
             .step = {1},
             .counter = static_cast<uint64_t>(seconds)});
    After(absl::Seconds(1), ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
  }
  ASSERT_TRUE(Has<DropWorker>());
  EXPECT_EQ(All<DropWorker>()[0].id.value, 2u);
  EXPECT_THAT(DownReason(), HasSubstr("no result of a step for 300"));
}

TEST_F(ClusterViewTest, AWorkerThatLeavesIsLetGoWhenNothingRuns) {
  Serve();
  Send(WorkerLeaving{{2}});
  ASSERT_TRUE(Has<CloseLayout>());
  EXPECT_THAT(All<CloseLayout>()[0].reason, HasSubstr("worker b (stage 0, rank 1) is leaving"));
  EXPECT_TRUE(view_->serving());
  After(absl::Seconds(1), ClusterTick{.idle = false, .last_step_change = now_});
  EXPECT_FALSE(Has<ReleaseWorker>());
  After(absl::Seconds(1), ClusterTick{.idle = true, .last_step_change = now_});
  ASSERT_TRUE(Has<StopServing>());
  EXPECT_TRUE(All<StopServing>()[0].planned);
  ASSERT_TRUE(Has<ReleaseWorker>());
  EXPECT_EQ(All<ReleaseWorker>()[0].id.value, 2u);
  EXPECT_EQ(view_->workers_joined(), 1);
  Join(3, "c");
  EXPECT_TRUE(Has<AssignLayout>()) << "the others go on, and need not wait";
}

TEST_F(ClusterViewTest, AWorkerThatLeavesIsLetGoWhenTheDrainTimeIsOver) {
  Serve();
  Send(WorkerLeaving{{2}});
  int seconds = 0;
  for (; seconds < 1000 && !Has<ReleaseWorker>(); ++seconds) {
    Beat(1, {.counter = static_cast<uint64_t>(seconds)});
    Beat(2, {.counter = static_cast<uint64_t>(seconds)});
    After(absl::Seconds(1), ClusterTick{.idle = false, .last_step_change = now_});
  }
  EXPECT_EQ(seconds, absl::ToInt64Seconds(kDefaultDrain));
  EXPECT_THAT(DownReason(), HasSubstr("requests ran on for 30.0 s"));
}

TEST_F(ClusterViewTest, ASpareWorkerLeavesAtOnce) {
  Serve();
  Join(3, "spare");
  Send(WorkerLeaving{{3}});
  EXPECT_TRUE(Has<ReleaseWorker>());
  EXPECT_FALSE(Has<CloseLayout>());
  EXPECT_TRUE(view_->serving());
}

// Workers that wait for NCCL wait for some peer. The first of their peers was blamed and sent away.
TEST_F(ClusterViewTest, WhoWaitsAndCannotTellForWhomBlamesNobody) {
  const WorkerProgress waits = {.epoch = {1}, .state = WorkerState::kStep, .waiting_for_some_peer = true};
  Serve();
  const absl::Duration sent = now_;
  while (view_->serving() && now_ - sent < absl::Minutes(1)) {
    for (const uint64_t id : {1, 2}) Beat(id, waits);
    After(absl::Seconds(1), ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
  }
  EXPECT_THAT(DownReason(), HasSubstr("a worker that nobody can name"));
  EXPECT_THAT(DownReason(), HasSubstr("for 10"));
  EXPECT_FALSE(Has<DropWorker>());
  EXPECT_EQ(view_->workers_joined(), 2);
}

TEST_F(ClusterViewTest, WhoIsKnownIsBlamedAlsoWhereOthersCannotTell) {
  const WorkerProgress waits = {.epoch = {1}, .state = WorkerState::kStep, .waiting_for_some_peer = true};
  const WorkerProgress hangs = {.epoch = {1}, .state = WorkerState::kStep};
  const WorkerProgress names = {.epoch = {1}, .state = WorkerState::kStep, .waiting_for = "a"};
  const WorkerProgress idle = {.epoch = {1}, .state = WorkerState::kReady};
  struct Case {
    WorkerProgress a, b;
    uint64_t dropped;
  };
  for (const Case& given : {Case{waits, hangs, 2}, {hangs, waits, 1}, {idle, names, 1}}) {
    view_ = std::make_unique<ClusterView>(Options(), PlanRanks);
    Serve();
    const absl::Duration sent = now_;
    while (view_->serving() && now_ - sent < absl::Minutes(1)) {
      Beat(1, given.a);
      Beat(2, given.b);
      After(absl::Seconds(1), ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
    }
    ASSERT_TRUE(Has<DropWorker>());
    EXPECT_EQ(All<DropWorker>()[0].id.value, given.dropped);
  }
}

TEST_F(ClusterViewTest, AFailureOfSomePeerIsNotThatOfWhoTellsIt) {
  Serve();
  Send(WorkerFailed{.id = {1},
                    .epoch = epoch_,
                    .reason = absl::DeadlineExceededError("NCCL waited"),
                    .of_some_peer = true});
  EXPECT_THAT(DownReason(), HasSubstr("a worker that nobody can name does not answer its peers: worker a"));
  EXPECT_FALSE(Has<DropWorker>());
}

// Nor is it sent to the end of the line, as who cannot load is.
TEST_F(ClusterViewTest, WhoTellsOfSomePeerWhileLinkingKeepsItsPlace) {
  Join(1, "a");
  Join(2, "b");
  const Epoch epoch = All<AssignLayout>().at(0).layout->epoch;
  Send(WorkerFailed{
      .id = {1}, .epoch = epoch, .reason = absl::DeadlineExceededError("NCCL waited"), .of_some_peer = true});
  Join(3, "c");
  After(absl::Seconds(1), ClusterTick{});
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[0].worker.inventory.name, "a");
}

}  // namespace
}  // namespace bellwether
