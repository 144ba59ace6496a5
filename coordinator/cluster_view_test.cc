#include "coordinator/cluster_view.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/testing/cluster_view_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

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
  EXPECT_FALSE(view_->serving());
  Send(WorkerReady{{2}, {1}});
  EXPECT_TRUE(view_->serving());
}

TEST_F(ClusterViewTest, TellsHowFarLoadingIsInStepsOfTenPercent) {
  constexpr int64_t kMiB = 1 << 20;
  Join(1, "a");
  Join(2, "b");
  const Epoch epoch = All<AssignLayout>().at(0).layout->epoch;
  const auto loading = [](int64_t loaded, int64_t total, Epoch of) {
    return WorkerProgress{
        .epoch = of, .state = WorkerState::kLoading, .loaded_bytes = loaded, .total_bytes = total};
  };
  const auto told = [this] { return Has<ReportWaiting>() ? All<ReportWaiting>()[0].reason : ""; };
  Beat(1, loading(0, 0, epoch));
  EXPECT_EQ(told(), "");
  Beat(1, loading(512 * kMiB, 512 * kMiB, Epoch{epoch.value - 1}));
  EXPECT_EQ(told(), "") << "of an epoch that is over";
  Beat(1,
       {.epoch = epoch, .state = WorkerState::kStep, .loaded_bytes = 512 * kMiB, .total_bytes = 512 * kMiB});
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
  EXPECT_TRUE(view_->serving());
  Beat(2, loading(512 * kMiB, 512 * kMiB, epoch));
  EXPECT_EQ(told(), "");
}

TEST_F(ClusterViewTest, RefusesWithTheReason) {
  JoiningWorker worker = Joining("x");
  worker.protocol_version = 99;
  Send(WorkerJoined{{1}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("protocol version 99"));
  EXPECT_TRUE(All<RefuseWorker>().at(0).for_now);
  worker = Joining("x");
  worker.build_id = "other";
  Send(WorkerJoined{{2}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("build other"));
  EXPECT_TRUE(All<RefuseWorker>().at(0).for_now) << "a coordinator of its build may be on its way";
  worker = Joining("x");
  worker.model_id = "llama";
  Send(WorkerJoined{{3}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("llama"));
  EXPECT_THAT(All<RefuseWorker>().at(0).reason, HasSubstr("id model"));
  EXPECT_FALSE(All<RefuseWorker>().at(0).for_now);
  worker.reading["dtype"] = "fp16";
  Send(WorkerJoined{{3}, worker});
  EXPECT_THAT(All<RefuseWorker>().at(0).reason,
              HasSubstr("reads its model with --dtype fp16, this coordinator without --dtype"));
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
  EXPECT_FALSE(view_->serving());
  Beat(1);
  Join(3, "c");
  const auto assigned = All<AssignLayout>();
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].layout->epoch.value, 2u);
  Send(WorkerReady{{1}, {1}});  // of the old epoch: means nothing
  Send(WorkerReady{{3}, {2}});
  EXPECT_FALSE(view_->serving());
  Send(WorkerReady{{1}, {2}});
  EXPECT_TRUE(view_->serving());
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
  ASSERT_TRUE(Has<StopServing>());
  EXPECT_FALSE(All<StopServing>()[0].planned);
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[1].worker.inventory.name, "spare");
}

TEST_F(ClusterViewTest, ASpareThatLeavesHurtsNobody) {
  Serve();
  Join(3, "spare");
  Send(WorkerLost{{3}, absl::UnavailableError("gone")});
  EXPECT_TRUE(view_->serving());
  EXPECT_FALSE(Has<EndWorkerEpoch>());
}

TEST_F(ClusterViewTest, NoHeartbeatForFourSecondsIsALostWorker) {
  Serve();
  for (int i = 0; i < 7; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1);
    Send(ClusterTick{});
    EXPECT_TRUE(view_->serving());
  }
  now_ += absl::Milliseconds(500);
  Beat(1);
  Send(ClusterTick{});
  EXPECT_FALSE(view_->serving());
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
  EXPECT_TRUE(view_->serving());
  for (int i = 0; i < 7; ++i) {
    now_ += absl::Milliseconds(500);
    Send(ClusterTick{});
    EXPECT_TRUE(view_->serving()) << i;
  }
  now_ += absl::Milliseconds(600);
  Send(ClusterTick{});
  EXPECT_FALSE(view_->serving());
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
  EXPECT_EQ(All<ReportWaiting>().at(0).reason,
            "worker a (stage 0, rank 0) failed: no memory; it is tried again after 1.0 s");
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

// A worker started with the wrong --model-root, or with too little memory, was given the same part again in
// epoch after epoch, while a good spare waited.
TEST_F(ClusterViewTest, AWorkerThatCannotLoadLosesItsPlaceToASpare) {
  Join(1, "a");
  Join(2, "b");
  Join(3, "spare");
  Send(WorkerFailed{{1}, {1}, absl::ResourceExhaustedError("no memory"), ""});
  EXPECT_EQ(All<ReportWaiting>().at(0).reason,
            "worker a (stage 0, rank 0) failed: no memory; another worker takes its place");
  EXPECT_FALSE(All<ReportWaiting>().at(0).refused) << "whoever waits for the cluster has reason to";
  Beat(3);
  After(absl::Seconds(3), WorkerBeat{{2}, {}});  // epochs that never served follow each other after a pause
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[0].worker.inventory.name, "b");
  EXPECT_EQ(All<AssignLayout>()[0].layout->members[1].worker.inventory.name, "spare");
  epoch_ = All<AssignLayout>()[0].layout->epoch;
  Send(WorkerReady{{2}, epoch_});
  Send(WorkerReady{{3}, epoch_});
  // Later too it comes last: behind one that has only just joined.
  Join(4, "late");
  Send(WorkerLost{{3}, absl::UnavailableError("gone")});
  EXPECT_EQ(All<AssignLayout>().at(0).layout->members[1].worker.inventory.name, "late");
}

TEST_F(ClusterViewTest, AWorkerThatCannotLoadRestsLongerEachTime) {
  Join(1, "a");
  Join(2, "b");
  std::vector<absl::Duration> begun;
  absl::Duration failed = now_;
  Send(WorkerFailed{{1}, {1}, absl::ResourceExhaustedError("no memory"), ""});
  for (int i = 0; i < 4000 && begun.size() < 8; ++i) {
    now_ += absl::Milliseconds(100);
    Beat(2);
    if (!Has<AssignLayout>()) continue;
    begun.push_back(now_ - failed);
    failed = now_;
    Send(WorkerFailed{
        {1}, All<AssignLayout>()[0].layout->epoch, absl::ResourceExhaustedError("no memory"), ""});
  }
  const auto seconds = [](int count) { return absl::Seconds(count); };
  EXPECT_THAT(begun, ::testing::ElementsAre(seconds(1), seconds(2), seconds(4), seconds(8), seconds(16),
                                            seconds(32), seconds(60), seconds(60)));
}

// Places followed the order of joining: after the loss of the first of four ranks all the others moved.
TEST_F(ClusterViewTest, SurvivorsAreKnownByWhatTheyHold) {
  std::vector<WorkerInventory> seen;
  ClusterView view(Options(),
                   [&seen](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
                     seen.assign(workers.begin(), workers.end());
                     return PlanRanks(workers, level);
                   });
  const auto held_rank = [&seen](size_t i) { return seen[i].held ? seen[i].held->rank : -1; };
  view.Handle(WorkerJoined{{1}, Joining("a")}, now_);
  view.Handle(WorkerJoined{{2}, Joining("b")}, now_);
  EXPECT_EQ(held_rank(0), -1);
  view.Handle(WorkerReady{{1}, {1}}, now_);
  view.Handle(WorkerReady{{2}, {1}}, now_);
  view.Handle(WorkerLost{{1}, absl::UnavailableError("killed")}, now_);
  view.Handle(WorkerJoined{{3}, Joining("c")}, now_);
  EXPECT_EQ(held_rank(0), 1) << "b";
  EXPECT_EQ(held_rank(1), -1) << "c";
  // b makes room for another part; c has loaded its own when b is lost.
  view.Handle(WorkerBeat{{3}, {.epoch = {2}, .state = WorkerState::kLinking}}, now_);
  view.Handle(WorkerFailed{{3}, {2}, absl::UnavailableError("b is silent"), "b"}, now_);
  now_ += absl::Seconds(3);
  view.Handle(WorkerBeat{{2}, {}}, now_);
  EXPECT_EQ(held_rank(0), -1) << "b";
  EXPECT_EQ(held_rank(1), 1) << "c";
}

TEST_F(ClusterViewTest, WhoHoldsAPartComesBeforeWhoHoldsNoneAlsoUnderANewCoordinator) {
  const auto layout = std::make_shared<const Layout>(Layout{.stages = {{.ranks = {{}, {}}}}});
  const auto holding = [&layout](const std::string& name, int rank, const std::string& model) {
    JoiningWorker worker = Joining(name);
    worker.inventory.held = HeldPart{.model_id = model, .layout = layout, .rank = rank};
    return worker;
  };
  std::vector<std::string> names;
  ClusterView view(
      Options(), [&names](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
        names.clear();
        for (const WorkerInventory& worker : workers) names.push_back(worker.name);
        return PlanRanks(workers, level);
      });
  view.Handle(WorkerJoined{{1}, Joining("spare")}, now_);
  view.Handle(WorkerJoined{{2}, holding("other", 0, "another model")}, now_);
  view.Handle(WorkerJoined{{3}, holding("a", 0, "model")}, now_);
  view.Handle(WorkerJoined{{4}, holding("b", 1, "model")}, now_);
  view.Handle(EpochFailed{{1}, absl::InternalError("start anew")}, now_);
  now_ += absl::Seconds(1);
  view.Handle(WorkerBeat{{1}, {}}, now_);
  EXPECT_THAT(names, ::testing::ElementsAre("a", "b"));
}

// 50 ms of measuring told equal workers apart by a factor of two.
TEST_F(ClusterViewTest, EqualWorkersOfAHostAreEquallyFastForEver) {
  std::vector<double> speeds;
  ClusterView view(
      Options(), [&speeds](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
        speeds.clear();
        for (const WorkerInventory& worker : workers) {
          speeds.push_back(worker.read_bytes_per_second);
          EXPECT_EQ(worker.arithmetic.int8, 100 * worker.read_bytes_per_second);  // of the same measurement
        }
        return PlanRanks(workers, level);
      });
  const auto joining = [](const std::string& name, double speed, int threads) {
    JoiningWorker worker = Joining(name);
    worker.inventory.cpu_type = "cpu";
    worker.inventory.threads = threads;
    worker.inventory.read_bytes_per_second = speed;
    worker.inventory.arithmetic.int8 = 100 * speed;
    return worker;
  };
  view.Handle(WorkerJoined{{1}, joining("a", 10, 2)}, now_);
  view.Handle(WorkerJoined{{2}, joining("b", 25, 2)}, now_);
  EXPECT_THAT(speeds, ::testing::ElementsAre(10, 10));
  view.Handle(WorkerLost{{1}, absl::UnavailableError("gone")}, now_);
  view.Handle(WorkerLost{{2}, absl::UnavailableError("gone")}, now_);
  now_ += absl::Seconds(1);
  view.Handle(WorkerJoined{{3}, joining("a", 14, 2)}, now_);
  view.Handle(WorkerJoined{{4}, joining("c", 30, 4)}, now_);
  EXPECT_THAT(speeds, ::testing::ElementsAre(10, 30)) << "more threads may read more";
}

// Workers refused such an assignment, were blamed for it, and were told the same again.
TEST_F(ClusterViewTest, APlanWhoseStepsMayTakeForEverIsRefused) {
  ClusterViewOptions options = Options();
  options.step_deadline = absl::ZeroDuration();
  const auto plan = [](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
    absl::StatusOr<Plan> plan = PlanRanks(workers, level);
    plan->step_tokens = 65536;
    plan->decode_tokens_per_second = 0.75;
    plan->token_seconds = 1 / 0.75;
    return plan;
  };
  ClusterView view(options, plan);
  view.Handle(WorkerJoined{{1}, Joining("a")}, now_);
  actions_ = view.Handle(WorkerJoined{{2}, Joining("b")}, now_);
  EXPECT_FALSE(Has<AssignLayout>());
  EXPECT_THAT(All<ReportWaiting>().at(0).reason, HasSubstr("lower --step-tokens"));
  EXPECT_TRUE(All<ReportWaiting>().at(0).refused);
  options.step_deadline = kStepDeadlineMax;
  ClusterView patient(options, plan);
  patient.Handle(WorkerJoined{{1}, Joining("a")}, now_);
  actions_ = patient.Handle(WorkerJoined{{2}, Joining("b")}, now_);
  EXPECT_TRUE(Has<AssignLayout>());
}

// Layers are streamed once a step, tokens are computed one by one: a deadline that forgot either ended every
// long prompt.
TEST_F(ClusterViewTest, AStepMayTakeItsTokensAndTheDrivesTime) {
  ClusterViewOptions options = Options();
  options.step_deadline = absl::ZeroDuration();
  const auto plan = [](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
    absl::StatusOr<Plan> plan = PlanRanks(workers, level);
    plan->decode_tokens_per_second = 1.0 / 7;
    plan->token_seconds = 0.5;
    plan->drive_seconds = 6.5;
    return plan;
  };
  ClusterView view(options, plan);
  view.Handle(WorkerJoined{{1}, Joining("a")}, now_);
  actions_ = view.Handle(WorkerJoined{{2}, Joining("b")}, now_);
  ASSERT_TRUE(Has<AssignLayout>());
  EXPECT_EQ(All<AssignLayout>()[0].layout->step_deadline, absl::Seconds(2 * (512 * 0.5 + 6.5)));
}

TEST_F(ClusterViewTest, AFailureOfAnOldEpochMeansNothing) {
  Serve();
  Send(WorkerFailed{{1}, {epoch_.value + 1}, absl::InternalError("late"), ""});
  EXPECT_TRUE(view_->serving());
  Send(EpochFailed{{epoch_.value + 1}, absl::InternalError("late")});
  EXPECT_TRUE(view_->serving());
  Send(EpochFailed{epoch_, absl::InternalError("nonsense")});
  EXPECT_FALSE(view_->serving());
}

TEST_F(ClusterViewTest, ANewcomersMemoryLacksWhatTheOthersOfItsHostHold) {
  JoiningWorker a = Joining("a"), b = Joining("b"), late = Joining("late");
  a.inventory.memory_bytes = b.inventory.memory_bytes = 1000;
  late.inventory.memory_bytes = 550;
  std::vector<int64_t> memory;
  ClusterView view(
      Options(), [&memory](absl::Span<const WorkerInventory> workers, const std::vector<std::string>& level) {
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

// The model id rests on samples: a replacement joined with other weights under the same id.
TEST_F(ClusterViewTest, AWorkerWithOtherWeightsIsRefusedAndTheTensorNamed) {
  Join(1, "a");
  Join(2, "b");
  Send(WorkerReady{{1}, {1}, 0, 0, {{"embedding weight", 7}, {"layer 0 up weight, rows 0-7", 1}}});
  Send(WorkerReady{{2}, {1}, 0, 0, {{"embedding weight", 7}, {"layer 0 up weight, rows 8-15", 2}}});
  ASSERT_TRUE(Has<StartServing>());
  Send(WorkerLost{{2}, absl::UnavailableError("gone")});
  Join(3, "c");
  Send(WorkerReady{{3}, {2}, 0, 0, {{"embedding weight", 7}, {"layer 0 up weight, rows 8-15", 3}}});
  ASSERT_EQ(All<RefuseWorker>().size(), 1u);
  EXPECT_EQ(All<RefuseWorker>()[0].id.value, 3u);
  EXPECT_THAT(All<RefuseWorker>()[0].reason,
              HasSubstr("worker c has other values of layer 0 up weight, rows 8-15 than worker b had"));
  EXPECT_EQ(view_->workers_joined(), 1);
  // b comes back; its part has moved by chance, but the values are the same.
  Join(4, "b");
  After(absl::Seconds(1), WorkerBeat{{1}, {}});
  Beat(4);
  Send(WorkerReady{{1}, {3}, 0, 0, {{"layer 0 up weight, rows 8-15", 2}}});
  Send(WorkerReady{{4}, {3}, 0, 0, {{"layer 0 up weight, rows 0-7", 1}}});
  EXPECT_TRUE(view_->serving());
}

TEST_F(ClusterViewTest, AHungExecutorIsFoundByItsProgress) {
  Serve();
  const absl::Duration sent = now_;
  for (int i = 0; i < 25; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = epoch_,
             .state = WorkerState::kStep,
             .step = {4},
             .layer = 2,
             .waiting_for = "b",
             .counter = 9});
    Beat(2, {.epoch = epoch_, .state = WorkerState::kStep, .step = {4}, .layer = 1, .counter = 5});
    Send(ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
    if (Has<StopServing>()) break;
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
    Beat(1, {.epoch = epoch_, .state = WorkerState::kStep, .waiting_for = "b"});
    Beat(2, {.epoch = epoch_, .state = WorkerState::kStep, .counter = static_cast<uint64_t>(i / 10)});
    Send(ClusterTick{.steps_outstanding = 1, .last_step_change = sent});
    ASSERT_TRUE(view_->serving()) << i;
  }
  for (int i = 0; i < 60; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = epoch_, .state = WorkerState::kReady});
    Beat(2, {.epoch = epoch_, .state = WorkerState::kReady});
    Send(ClusterTick{.steps_outstanding = 0, .last_step_change = sent});
    ASSERT_TRUE(view_->serving()) << i;
  }
}

TEST_F(ClusterViewTest, AWorkerStuckWhileLoadingIsDropped) {
  Join(1, "a");
  Join(2, "b");
  bool dropped = false;
  for (int i = 0; i < 400 && !dropped; ++i) {
    now_ += absl::Milliseconds(500);
    Beat(1, {.epoch = {1}, .state = WorkerState::kLinking});
    Beat(2, {.epoch = {1}, .state = WorkerState::kLoading, .loaded_bytes = 7});
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
  ClusterView view(
      Options(),
      [&calls](absl::Span<const WorkerInventory>, const std::vector<std::string>&) -> absl::StatusOr<Plan> {
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
