#include "coordinator/cluster_snapshot.h"

#include "coordinator/cluster_view.h"
#include "coordinator/testing/cluster_view_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

class ClusterSnapshotTest : public ClusterViewTest {
 protected:
  ClusterSnapshot Snapshot() const { return view_->snapshot(); }
  uint64_t Ended(EpochEnd why) const { return Snapshot().epochs_ended[static_cast<size_t>(why)]; }
  uint64_t EndedInAll() const {
    uint64_t all = 0;
    for (const uint64_t count : Snapshot().epochs_ended) all += count;
    return all;
  }
  // Heartbeats of both, so that nobody is missed.
  void Tick(absl::Duration time) {
    now_ += time;
    Beat(1);
    Beat(2);
    Send(ClusterTick{});
  }
};

TEST_F(ClusterSnapshotTest, CountsTheTimeWithoutService) {
  Send(ClusterTick{});
  EXPECT_EQ(Snapshot().not_serving, absl::ZeroDuration()) << "the clock's zero has no meaning";
  After(absl::Seconds(5), ClusterTick{});
  EXPECT_EQ(Snapshot().not_serving, absl::Seconds(5));
  Serve();
  EXPECT_TRUE(Snapshot().serving);
  Tick(absl::Seconds(3));
  Tick(absl::Seconds(3));
  EXPECT_EQ(Snapshot().not_serving, absl::Seconds(5));
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  After(absl::Seconds(2), ClusterTick{});
  EXPECT_FALSE(Snapshot().serving);
  EXPECT_EQ(Snapshot().not_serving, absl::Seconds(7));
}

TEST_F(ClusterSnapshotTest, ALayoutThatTakesNoMoreRequestsDoesNotServe) {
  Serve();
  Send(WorkerLeaving{{1}});
  EXPECT_FALSE(Snapshot().serving);
  now_ += absl::Seconds(1);
  Send(ClusterTick{.idle = false});
  EXPECT_EQ(Snapshot().not_serving, absl::Seconds(1));
}

TEST_F(ClusterSnapshotTest, CountsWhyEpochsEnd) {
  Serve();
  EXPECT_EQ(EndedInAll(), 0u);
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  EXPECT_EQ(Ended(EpochEnd::kWorkerLost), 1u);
  EXPECT_EQ(EndedInAll(), 1u);
}

TEST_F(ClusterSnapshotTest, CountsAFailedStep) {
  Serve();
  Send(WorkerFailed{{1}, epoch_, absl::InternalError("a damaged weight"), ""});
  EXPECT_EQ(Ended(EpochEnd::kWorkerFailed), 1u);
  EXPECT_EQ(EndedInAll(), 1u);
}

// A peer may notice before the coordinator does. It used to count as a failure of a worker, in whose log
// there is nothing of it.
TEST_F(ClusterSnapshotTest, CountsWhatAPeerNoticedForWhatItIs) {
  Serve();
  Send(WorkerFailed{{1}, epoch_, absl::DeadlineExceededError("nothing moved for 30s"), "b"});
  EXPECT_EQ(Ended(EpochEnd::kWorkerStuck), 1u);
  EXPECT_EQ(EndedInAll(), 1u);
}

TEST_F(ClusterSnapshotTest, CountsALinkThatBroke) {
  Serve();
  Send(WorkerFailed{{1}, epoch_, absl::UnavailableError("link closed"), "b"});
  EXPECT_EQ(Ended(EpochEnd::kWorkerLost), 1u);
  EXPECT_EQ(EndedInAll(), 1u);
}

TEST_F(ClusterSnapshotTest, CountsResultsThatMakeNoSense) {
  Serve();
  Send(EpochFailed{epoch_, absl::InternalError("an output too many")});
  EXPECT_EQ(Ended(EpochEnd::kBadResult), 1u);
}

TEST_F(ClusterSnapshotTest, CountsWorkersThatLeaveInPeace) {
  Serve();
  Send(WorkerLeaving{{1}});
  Send(ClusterTick{.idle = true});
  EXPECT_EQ(Ended(EpochEnd::kWorkerLeft), 1u);
  EXPECT_EQ(EndedInAll(), 1u);
}

TEST_F(ClusterSnapshotTest, CountsWorkersThatAreStuck) {
  Serve();
  for (int i = 0; i < 12; ++i) {
    now_ += absl::Seconds(1);
    Beat(1, {.epoch = epoch_, .state = WorkerState::kStep});
    Beat(2, {.epoch = epoch_, .state = WorkerState::kStep});
    Send(ClusterTick{.steps_outstanding = 1, .idle = false, .last_step_change = absl::Seconds(100)});
  }
  EXPECT_EQ(Ended(EpochEnd::kWorkerStuck), 1u);
}

TEST_F(ClusterSnapshotTest, SumsUpWhoWasWaitedFor) {
  Serve();
  Beat(1, {.epoch = epoch_, .waits = {{.peer = 1, .seconds = 5}}});
  Beat(2, {.epoch = epoch_, .waits = {{.peer = 0, .seconds = 2}, {.peer = 700, .seconds = 9}}});
  EXPECT_THAT(Snapshot().waited_for, ElementsAre(2, 5));
  Beat(1, {.epoch = Epoch{epoch_.value - 1}, .waits = {{.peer = 1, .seconds = 50}}});
  EXPECT_THAT(Snapshot().waited_for, ElementsAre(2, 0)) << "of an epoch that is over";
}

TEST_F(ClusterSnapshotTest, ALostWorkerIsMissingUntilThereIsAnotherLayout) {
  Serve();
  EXPECT_EQ(Snapshot().workers.size(), 2u);
  EXPECT_TRUE(Snapshot().missing.empty());
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  EXPECT_EQ(Snapshot().layout, nullptr);
  ASSERT_EQ(Snapshot().missing.size(), 1u);
  EXPECT_EQ(Snapshot().missing[0].name, "b");
  now_ += absl::Minutes(1);
  Beat(1);
  Join(3, "c");
  EXPECT_NE(Snapshot().layout, nullptr);
  EXPECT_TRUE(Snapshot().missing.empty());
}

TEST_F(ClusterSnapshotTest, AWorkerThatIsBackIsNotMissing) {
  Serve();
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  Join(3, "b");
  EXPECT_TRUE(Snapshot().missing.empty());
}

TEST_F(ClusterSnapshotTest, TellsHowOldHeartbeatsAre) {
  Serve();
  now_ += absl::Seconds(1);
  Beat(1);
  After(absl::Seconds(1), ClusterTick{});
  EXPECT_EQ(Snapshot().workers[0].heartbeat_age, absl::Seconds(1));
  EXPECT_EQ(Snapshot().workers[1].heartbeat_age, absl::Seconds(2));
}

}  // namespace
}  // namespace bellwether
