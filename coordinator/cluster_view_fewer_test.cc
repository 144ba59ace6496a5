// Fewer workers serve where others stay away (--workers-min), and all of them again when they are back.

#include <memory>
#include <set>

#include "coordinator/testing/cluster_view_fixture.h"
#include "gmock/gmock.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ClusterViewFewerTest : public ClusterViewTest {
 protected:
  // Three workers (1 a, 2 b, 3 c) serve, and two would do.
  void SetUp() override { Make(FewerOptions()); }
  void Make(const ClusterViewOptions& options) {
    view_ = std::make_unique<ClusterView>(options, [this](const auto& workers, const auto& levels) {
      return cannot_plan_.contains(workers.size())
                 ? absl::FailedPreconditionError(absl::StrCat("does not fit into ", workers.size()))
                 : PlanRanks(workers, levels);
    });
  }
  static ClusterViewOptions FewerOptions() {
    ClusterViewOptions options = Options();
    options.workers_wanted = 3;
    options.workers_min = 2;
    options.replace_wait = absl::Seconds(20);
    options.heartbeat_timeout = absl::Hours(1);
    return options;
  }
  void ServeAll() {
    Join(1, "a");
    Join(2, "b");
    Join(3, "c");
    AllLoad();
  }
  std::vector<std::string> Assigned() const {
    std::vector<std::string> names;
    for (const AssignLayout& assigned : All<AssignLayout>()) {
      for (const ClusterLayout::Member& member : assigned.layout->members)
        names.push_back(member.worker.inventory.name);
    }
    return names;
  }
  // Those of the layout that has just been assigned.
  void AllLoad() {
    const auto assigned = All<AssignLayout>();
    ASSERT_EQ(assigned.size(), 1);
    for (const ClusterLayout::Member& member : assigned[0].layout->members)
      Send(WorkerReady{member.id, assigned[0].layout->epoch});
    ASSERT_TRUE(view_->serving());
  }
  // The third has been lost, and the others serve.
  void ServeWithTwo() {
    ServeAll();
    Lose(3);
    Wait(absl::Seconds(20));
    AllLoad();
  }
  // One of those of the layout that has just been assigned.
  void FailToLoad(uint64_t id) {
    const auto assigned = All<AssignLayout>();
    ASSERT_EQ(assigned.size(), 1);
    ASSERT_EQ(assigned[0].layout->members.size(), 3);
    Send(WorkerFailed{{id}, assigned[0].layout->epoch, absl::ResourceExhaustedError("its disk is full")});
  }
  void Lose(uint64_t id) { Send(WorkerLost{{id}, absl::UnavailableError("gone")}); }
  void Wait(absl::Duration time) { After(time, ClusterTick{}); }

  std::set<size_t> cannot_plan_;  // how many workers there is no plan for
};

TEST_F(ClusterViewFewerTest, TwoServeWhereTheThirdStaysAwayAndAllWhenItIsBack) {
  ServeAll();
  Lose(3);
  ASSERT_TRUE(Has<ReportWaiting>());
  EXPECT_THAT(All<ReportWaiting>().back().reason,
              HasSubstr("2 of 3 have joined, 2 do after 20.0 s (worker c"));
  Wait(absl::Seconds(19));
  EXPECT_THAT(Assigned(), IsEmpty());
  Wait(absl::Seconds(1));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b"));
  EXPECT_EQ(view_->snapshot().workers_short, 0) << "whether they will serve is open";
  AllLoad();
  EXPECT_EQ(view_->snapshot().workers_short, 1);
  Join(4, "c");
  ASSERT_TRUE(Has<StopServing>());
  EXPECT_TRUE(All<StopServing>()[0].planned) << "no request is to blame";
  EXPECT_EQ(DownReason(), "worker c has joined: 3 workers serve from now on, where 2 did");
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(view_->snapshot().workers_short, 1) << "an alert is not interrupted by a try that may fail";
  AllLoad();
  EXPECT_EQ(view_->snapshot().workers_short, 0);
  Join(5, "d");
  EXPECT_FALSE(Has<StopServing>()) << "a spare like any other";
}

TEST_F(ClusterViewFewerTest, AllAreWaitedForBeforeTheyServeForTheFirstTime) {
  Join(1, "a");
  Join(2, "b");
  Wait(absl::Hours(10));
  EXPECT_THAT(Assigned(), IsEmpty());
}

TEST_F(ClusterViewFewerTest, OneThatComesBackInTimeTakesItsPlace) {
  ServeAll();
  Lose(3);
  Wait(absl::Seconds(19));
  Join(4, "c");
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
}

TEST_F(ClusterViewFewerTest, EachLossIsWaitedForAnew) {
  ServeWithTwo();
  Join(4, "c");
  AllLoad();
  Lose(4);
  EXPECT_THAT(Assigned(), IsEmpty());
  Wait(absl::Seconds(20));
  AllLoad();
  Lose(2);
  Wait(absl::Hours(10));
  EXPECT_THAT(Assigned(), IsEmpty()) << "one is too few";
  Join(5, "b");
  EXPECT_THAT(Assigned(), ElementsAre("a", "b")) << "two have been waited for long enough";
}

TEST_F(ClusterViewFewerTest, AsManyServeAsThereIsAPlanFor) {
  ClusterViewOptions options = FewerOptions();
  options.workers_wanted = 4;
  options.workers_min = 1;
  Make(options);
  cannot_plan_ = {1, 3};  // as where ranks are given by twos
  for (const uint64_t id : {1, 2, 3, 4}) Join(id, std::string(1, static_cast<char>('a' + id - 1)));
  AllLoad();
  Lose(1);
  Wait(absl::Seconds(20));
  EXPECT_THAT(Assigned(), ElementsAre("b", "c"));
  AllLoad();
  Lose(4);
  EXPECT_TRUE(view_->serving()) << "it had no part";
  Join(5, "e");
  EXPECT_TRUE(view_->serving()) << "for three there is no plan";
  Join(6, "f");
  EXPECT_THAT(Assigned(), ElementsAre("b", "c", "e", "f"));
}

// That waiting hardly helps was told though the third was only away, and who was lost was told no more.
TEST_F(ClusterViewFewerTest, WhereFewerDoNotFitTheReasonIsToldAndTheOthersAreWaitedFor) {
  cannot_plan_ = {2};
  ServeAll();
  Lose(3);
  Wait(absl::Seconds(20));
  ASSERT_TRUE(Has<ReportWaiting>());
  EXPECT_EQ(
      All<ReportWaiting>().back().reason,
      "waiting for workers: 2 of 3 have joined; for fewer there is no plan: does not fit into 2 (worker c "
      "(stage 0, rank 2) is lost: gone)");
  EXPECT_FALSE(All<ReportWaiting>().back().refused);
  Join(4, "c");
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
}

// What there was no plan for is looked at anew when fewer will do, and when one that rested is back in line:
// nobody comes or goes then.
TEST_F(ClusterViewFewerTest, OneThatTheModelDoesNotFitIntoIsLeftOutInTheEnd) {
  ServeAll();
  Lose(3);
  cannot_plan_ = {3};
  Join(4, "d");
  EXPECT_EQ(All<ReportWaiting>().back().reason, "does not fit into 3");
  EXPECT_TRUE(All<ReportWaiting>().back().refused);
  Wait(absl::Seconds(20));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b"));
}

TEST_F(ClusterViewFewerTest, WhereFewerDoNotFitOneThatRestsIsTriedAgain) {
  cannot_plan_ = {2};
  ServeAll();
  Lose(3);
  Wait(absl::Seconds(20));
  Join(4, "c");
  FailToLoad(4);
  EXPECT_FALSE(All<ReportWaiting>().back().refused) << "two may do";
  Wait(absl::Milliseconds(500));
  ASSERT_TRUE(Has<ReportWaiting>());
  EXPECT_EQ(
      All<ReportWaiting>().back().reason,
      "worker c (stage 0, rank 2) failed: its disk is full; the others serve without it, if they can; for "
      "fewer there is no plan: does not fit into 2");
  EXPECT_TRUE(All<ReportWaiting>().back().refused);
  Wait(absl::Milliseconds(500));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
  FailToLoad(4);
  Wait(absl::Seconds(1));
  EXPECT_TRUE(All<ReportWaiting>().back().refused);
  Lose(4);
  ASSERT_TRUE(Has<ReportWaiting>());
  EXPECT_THAT(All<ReportWaiting>().back().reason, HasSubstr("waiting for workers: 2 of 3 have joined; for"));
  EXPECT_FALSE(All<ReportWaiting>().back().refused) << "it had no part, and may come back";
}

// For all that are there now there is no plan, and for fewer of them there is.
TEST_F(ClusterViewFewerTest, AsManyAreTakenInAsThereIsAPlanFor) {
  ClusterViewOptions options = FewerOptions();
  options.workers_wanted = 4;
  Make(options);
  for (const uint64_t id : {1, 2, 3, 4}) Join(id, std::string(1, static_cast<char>('a' + id - 1)));
  AllLoad();
  Lose(3);
  Lose(4);
  Wait(absl::Seconds(20));
  AllLoad();
  cannot_plan_ = {3, 4};
  Join(5, "e");
  Join(6, "f");
  EXPECT_TRUE(view_->serving());
  cannot_plan_ = {4};
  Join(7, "g");
  EXPECT_EQ(DownReason(), "worker e has joined: 3 workers serve from now on, where 2 did");
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "e"));
}

// A layout may have fewer places than there are workers: one that joins them ends nothing.
TEST_F(ClusterViewFewerTest, OneThatGetsNoPartEndsNothing) {
  for (const int least : {0, 2}) {
    ClusterViewOptions options = FewerOptions();
    options.workers_min = least;
    view_ = std::make_unique<ClusterView>(options, [](const auto& workers, const auto& levels) {
      return PlanRanks(workers.subspan(0, 2), levels);
    });
    ServeAll();
    EXPECT_EQ(view_->snapshot().workers_short, 0);
    Join(4, "d");
    EXPECT_FALSE(Has<StopServing>());
    EXPECT_TRUE(view_->serving());
  }
}

// A worker that joins and cannot load must not end what serves again and again. But it may have been mended
// meanwhile, and one that stays connected never joins again: it was left out for good.
TEST_F(ClusterViewFewerTest, OneThatCannotLoadIsTriedAgainNowAndThen) {
  ServeWithTwo();
  Join(4, "c");
  FailToLoad(4);
  for (int i = 0; i < 10 && Assigned().empty(); ++i) Wait(absl::Milliseconds(90));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b")) << "while the third rests";
  Wait(absl::Hours(1));
  EXPECT_THAT(All<EndWorkerEpoch>(), IsEmpty())
      << "those that are left load in peace, however long they take";
  Send(WorkerReady{{1}, {4}});
  Send(WorkerReady{{2}, {4}});
  Wait(absl::Minutes(9));
  EXPECT_TRUE(view_->serving());
  Wait(absl::Minutes(1));
  EXPECT_EQ(DownReason(), "worker c is tried again: 3 workers serve from now on, where 2 did");
  EXPECT_TRUE(All<StopServing>()[0].planned);
  FailToLoad(4);
  Wait(absl::Milliseconds(200));
  AllLoad();
  Wait(absl::Minutes(9));
  EXPECT_TRUE(view_->serving());
  Wait(absl::Minutes(1));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
  AllLoad();
}

// Nobody joined, so nobody asked whether there is a plan for more.
TEST_F(ClusterViewFewerTest, OneThatFailedBeforeFewerServedIsTriedAgainToo) {
  ServeAll();
  Lose(3);
  Join(4, "c");
  for (absl::Duration rest = absl::Seconds(1); rest <= absl::Seconds(16); rest *= 2) {
    FailToLoad(4);
    Wait(rest);
  }
  FailToLoad(4);
  Wait(absl::Seconds(10));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b")) << "for half a minute the third was tried";
  AllLoad();
  Wait(absl::Minutes(9));
  EXPECT_TRUE(view_->serving());
  Wait(absl::Minutes(1));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
}

// It has a new number each time it is back, so nobody can tell that it failed before.
TEST_F(ClusterViewFewerTest, OneThatDiesEachTimeItLoadsCostsATryNowAndThen) {
  ServeWithTwo();
  Join(4, "c");
  ASSERT_EQ(Assigned().size(), 3);
  Lose(4);
  Wait(absl::Milliseconds(200));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b"));
  Join(5, "c");
  EXPECT_FALSE(Has<EndWorkerEpoch>()) << "those that are left load in peace";
  Lose(5);
  Send(WorkerReady{{1}, {4}});
  Send(WorkerReady{{2}, {4}});
  ASSERT_TRUE(view_->serving());
  Join(6, "c");
  EXPECT_TRUE(view_->serving());
  Wait(absl::Minutes(10));
  EXPECT_THAT(Assigned(), ElementsAre("a", "b", "c"));
  AllLoad();
  Lose(6);
  Wait(absl::Seconds(20));
  AllLoad();
  Join(7, "c");
  EXPECT_EQ(Assigned().size(), 3) << "it has served in between";
}

}  // namespace
}  // namespace bellwether
