#include "worker/epoch_runner.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/bounded_queue.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/counting_runtime.h"
#include "model/checkpoint/testing_files.h"
#include "worker/device/cpu_device.h"
#include "worker/device/gpu_device.h"
#include "worker/inventory.h"
#include "worker/link/shm_connector.h"
#include "worker/link/testing/fake_nccl.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/goldens/models/llama-mha";

// What runners report, in the order they do.
class Reports {
 public:
  struct Report {
    enum Kind { kReady, kResult, kFailed } kind;
    Epoch epoch;
    StepResult result;
    absl::Status status;
    int blamed = -1;
  };
  EpochRunner::Events Events() {
    return {.ready = [this](Epoch epoch, const LoadedShard&,
                            int64_t) { Add({.kind = Report::kReady, .epoch = epoch}); },
            .result =
                [this](const StepResult& result) {
                  Add({.kind = Report::kResult, .epoch = result.epoch, .result = result});
                },
            .failed =
                [this](Epoch epoch, const absl::Status& status, int blamed) {
                  on_failure();
                  Add({.kind = Report::kFailed, .epoch = epoch, .status = status, .blamed = blamed});
                }};
  }
  std::function<void()> on_failure = [] {};  // set before anything runs
  Report Next() {
    MutexLock lock(&mutex_);
    const auto some = [this] { return !reports_.empty(); };
    mutex_.Await(some);
    Report report = std::move(reports_.front());
    reports_.pop_front();
    return report;
  }

 private:
  void Add(Report report) {
    MutexLock lock(&mutex_);
    reports_.push_back(std::move(report));
  }
  Mutex mutex_;
  std::deque<Report> reports_;
};
using Report = Reports::Report;

// One worker of a process: everything but the session.
struct Worker {
  Worker() : Worker(std::make_shared<CpuDevice>(/*threads=*/1), {}) {}
  Worker(std::shared_ptr<Device> device, NcclUse nccl, std::vector<int> cpus = {})
      : links(*LinkListener::Start({})),
        runner({.models = &models,
                .links = links.get(),
                .device = std::move(device),
                .cpus = std::move(cpus),
                .nccl = std::move(nccl),
                .events = reports.Events()}) {}
  ModelSource models{kModel, ""};
  std::unique_ptr<LinkListener> links;
  Reports reports;
  EpochRunner runner;
};

EpochTask Task(uint64_t epoch, int ranks, int rank, const std::vector<Worker*>& workers) {
  ModelSource models(kModel, "");
  EpochTask task;
  task.assignment = {.epoch = {epoch},
                     .model_id = *models.ModelId(),
                     .layout = *EvenLayout((*models.Find(*models.ModelId()))->config(), 1, ranks),
                     .rank = rank,
                     .numeric = {.kernel_level = "portable"},
                     .kv_blocks = 4,
                     .context_tokens = 64,
                     .step_tokens = 64,
                     .step_deadline = absl::Seconds(30)};
  task.link_secret = "secret";
  for (size_t i = 0; i < workers.size(); ++i) {
    task.peers.push_back(
        {.index = static_cast<int>(i), .name = "peer", .unix_socket = workers[i]->links->unix_socket()});
  }
  return task;
}

Step FirstStep(uint64_t epoch) {
  Admission admission{.sequence = {1}, .tokens = {1, 2, 3}, .prompt_length = 3};
  admission.sampling.temperature = 0;
  StepEntry entry{.sequence = {1}, .count = 3, .new_blocks = {0}, .sample = true};
  return {.epoch = {epoch}, .id = {1}, .admissions = {admission}, .entries = {entry}};
}

bool WaitUntilLinking(const EpochRunner& runner) {
  const absl::Duration end = Clock::Real()->Now() + absl::Seconds(60);
  while (runner.progress().state != WorkerState::kLinking && Clock::Real()->Now() < end)
    std::this_thread::yield();
  return runner.progress().state == WorkerState::kLinking;
}

TEST(EpochRunner, RunsEpochAfterEpochWithTheSameAnswer) {
  Worker worker;
  std::optional<TokenId> token;
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    worker.runner.Begin(Task(epoch, 1, 0, {&worker}));
    Report report = worker.reports.Next();
    ASSERT_EQ(report.kind, Report::kReady) << report.status;
    EXPECT_EQ(report.epoch.value, epoch);
    ASSERT_TRUE(worker.runner.Add(FirstStep(epoch)));
    report = worker.reports.Next();
    ASSERT_EQ(report.kind, Report::kResult) << report.status;
    ASSERT_EQ(report.result.outputs.size(), 1u);
    EXPECT_EQ(report.result.outputs[0].token, token.value_or(report.result.outputs[0].token));
    token = report.result.outputs[0].token;
  }
}

TEST(EpochRunner, TellsWhatItHoldsAndWhereItsTimeGoes) {
  Worker a, b;
  EXPECT_EQ(a.runner.progress().last_stage, -1) << "before its first layout";
  EXPECT_EQ(a.runner.progress().weight_bytes, 0);
  const std::vector<Worker*> workers = {&a, &b};
  a.runner.Begin(Task(1, 2, 0, workers));
  b.runner.Begin(Task(1, 2, 1, workers));
  ASSERT_EQ(a.reports.Next().kind, Report::kReady);
  ASSERT_EQ(b.reports.Next().kind, Report::kReady);
  ASSERT_TRUE(b.runner.Add(FirstStep(1)));
  ASSERT_TRUE(a.runner.Add(FirstStep(1)));
  ASSERT_EQ(a.reports.Next().kind, Report::kResult);
  const EpochRunner::Progress progress = a.runner.progress();
  EXPECT_EQ(progress.last_stage, 0);
  EXPECT_EQ(progress.last_rank, 0);
  EXPECT_GT(progress.weight_bytes, 0);
  EXPECT_GT(progress.kv_bytes, 0);
  EXPECT_EQ(progress.times.steps, 1u);
  EXPECT_GT(progress.times.parts[static_cast<size_t>(StepPart::kCompute)], absl::ZeroDuration());
  EXPECT_GT(progress.times.parts[static_cast<size_t>(StepPart::kCollectiveWait)], absl::ZeroDuration());
  const auto collective = static_cast<size_t>(StepMeter::Use::kCollective);
  EXPECT_GT(progress.times.sent_bytes[collective], 0);
  EXPECT_GT(progress.times.received_bytes[collective], 0);
  ASSERT_EQ(progress.waits.size(), 1u);
  EXPECT_EQ(progress.waits[0].index, 1);
  EXPECT_EQ(progress.waits[0].rank, 1);
  EXPECT_GT(progress.waits[0].waited, absl::ZeroDuration());
}

TEST(EpochRunner, AStepOutOfOrderFailsTheEpochAndTheNextOneGoesOn) {
  Worker worker;
  worker.runner.Begin(Task(1, 1, 0, {&worker}));
  ASSERT_EQ(worker.reports.Next().kind, Report::kReady);
  Step step = FirstStep(1);
  step.id.value = 5;
  ASSERT_TRUE(worker.runner.Add(step));
  const Report report = worker.reports.Next();
  ASSERT_EQ(report.kind, Report::kFailed);
  EXPECT_EQ(report.epoch.value, 1u);
  EXPECT_EQ(report.blamed, -1);
  worker.runner.Begin(Task(2, 1, 0, {&worker}));
  EXPECT_EQ(worker.reports.Next().kind, Report::kReady);
}

TEST(EpochRunner, AnotherModelIsRefused) {
  Worker worker;
  EpochTask task = Task(1, 1, 0, {&worker});
  task.assignment.model_id = "another";
  worker.runner.Begin(std::move(task));
  const Report report = worker.reports.Next();
  ASSERT_EQ(report.kind, Report::kFailed);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("another"));
}

TEST(EpochRunner, RanksShareAStepAndOneResultCounts) {
  Worker a, b;
  a.runner.Begin(Task(1, 2, 0, {&a, &b}));
  b.runner.Begin(Task(1, 2, 1, {&a, &b}));
  ASSERT_EQ(a.reports.Next().kind, Report::kReady);
  ASSERT_EQ(b.reports.Next().kind, Report::kReady);
  ASSERT_TRUE(a.runner.Add(FirstStep(1)));
  ASSERT_TRUE(b.runner.Add(FirstStep(1)));
  EXPECT_EQ(a.reports.Next().kind, Report::kResult);
  // Only a reports: the next thing b says is about the next epoch.
  b.runner.End({1}, "the test says so");
  b.runner.Begin(Task(2, 1, 0, {&b}));
  const Report report = b.reports.Next();
  EXPECT_EQ(report.kind, Report::kReady);
  EXPECT_EQ(report.epoch.value, 2u);
}

TEST(EpochRunner, APeerThatGoesAwayIsBlamed) {
  Worker a;
  auto b = std::make_unique<Worker>();
  a.runner.Begin(Task(1, 2, 0, {&a, b.get()}));
  b->runner.Begin(Task(1, 2, 1, {&a, b.get()}));
  ASSERT_EQ(a.reports.Next().kind, Report::kReady);
  ASSERT_EQ(b->reports.Next().kind, Report::kReady);
  ASSERT_TRUE(a.runner.Add(FirstStep(1)));  // waits for b
  b.reset();
  const Report report = a.reports.Next();
  ASSERT_EQ(report.kind, Report::kFailed);
  EXPECT_EQ(report.blamed, 1);
}

// What the old epoch had loaded was told as the new one's, which hid that nothing went on there.
TEST(EpochRunner, NothingIsToldOfAnEpochThatHasNotBegun) {
  Worker a, absent;
  EpochTask task = Task(1, 2, 0, {&a, &absent});
  a.runner.Begin(task);
  ASSERT_TRUE(WaitUntilLinking(a.runner)) << "it waits for a peer that never comes";
  EXPECT_EQ(a.runner.progress().epoch.value, 1u);
  EXPECT_GT(a.runner.progress().loaded_bytes, 0);
  EXPECT_EQ(a.runner.held()->layout->workers(), 2);
  a.runner.End({1}, "given up");
  const EpochRunner::Progress progress = a.runner.progress();
  EXPECT_EQ(progress.epoch.value, 0u);
  EXPECT_EQ(progress.state, WorkerState::kJoined);
  EXPECT_EQ(progress.loaded_bytes, 0);
  EXPECT_TRUE(a.runner.held().has_value()) << "the weights stay";
}

TEST(EpochRunner, AnEpochCanBeEndedWhileItWaitsForPeers) {
  Worker a, absent;
  // Stands for a peer that takes the connection and never answers it.
  BoundedQueue<std::unique_ptr<IncomingPeer>> connections(1);
  const auto silent = ShmListener::Start(
      [&](std::unique_ptr<IncomingPeer> peer) { EXPECT_TRUE(connections.TryPush(std::move(peer))); });
  ASSERT_TRUE(silent.ok()) << silent.status();
  EpochTask task = Task(1, 2, 0, {&a, &absent});
  task.peers[1].unix_socket = (*silent)->name();
  a.runner.Begin(std::move(task));
  const auto connected = connections.Pop();
  ASSERT_TRUE(connected.has_value());
  EXPECT_EQ(a.runner.progress().state, WorkerState::kLinking);
  a.runner.End({1}, "given up");
  a.runner.Begin(Task(2, 1, 0, {&a}));
  const Report report = a.reports.Next();
  EXPECT_EQ(report.kind, Report::kReady);
  EXPECT_EQ(report.epoch.value, 2u);
}

// A worker whose layers move reads again only those that it lacks, and packs none of them.
TEST(EpochRunner, ALaterEpochReadsWhatTheWorkerLacks) {
  constexpr char kFourLayers[] = "random:llama?hidden=96,layers=4,heads=6,kv_heads=3,ffn=172,vocab=160:bf16";
  const testing_files::TemporaryDirectory directory;
  Mutex mutex;
  std::set<ino_t> read;  // files
  const auto cache = *ShardCache::Open(
      {.directory = directory.path(), .read_at = [&](int fd, void* to, size_t bytes, off_t offset) {
         struct stat file = {};
         EXPECT_EQ(fstat(fd, &file), 0);
         MutexLock lock(&mutex);
         read.insert(file.st_ino);
         return pread(fd, to, bytes, offset);
       }});
  // "layer 2", "outside the layers", of those that were read since it was asked last.
  const auto layers_read = [&] {
    std::set<std::string> names;
    MutexLock lock(&mutex);
    const auto layers = ListShardCache(directory.path());
    if (!layers.ok()) return names;
    for (const CachedLayer& layer : *layers) {
      struct stat file = {};
      EXPECT_EQ(stat(layer.path.c_str(), &file), 0);
      if (!read.contains(file.st_ino)) continue;
      for (const std::string& line : std::vector<std::string>(absl::StrSplit(layer.key, '\n'))) {
        const bool is_name = line.starts_with("layer ") && line.find(' ', 6) == std::string::npos;
        if (is_name || line == "outside the layers") names.insert(line);
      }
    }
    read.clear();
    return names;
  };
  ModelSource models(kFourLayers, "");
  const auto task = [&](uint64_t epoch, int stages, int stage, LinkListener& links) {
    EpochTask task;
    task.assignment = {.epoch = {epoch},
                       .model_id = *models.ModelId(),
                       .layout = *EvenLayout((*models.Find(*models.ModelId()))->config(), stages, 1),
                       .stage = stage,
                       .numeric = {.kernel_level = "portable"},
                       .kv_blocks = 4,
                       .context_tokens = 64,
                       .step_tokens = 64,
                       .step_deadline = absl::Seconds(30)};
    task.link_secret = "secret";
    for (int i = 0; i < stages; ++i)
      task.peers.push_back({.index = i, .name = "peer", .unix_socket = links.unix_socket()});
    return task;
  };
  const auto links = *LinkListener::Start({}), absent = *LinkListener::Start({});
  Reports reports;
  const auto runner_options = [&] {
    return EpochRunner::Options{.models = &models,
                                .links = links.get(),
                                .device = std::make_shared<CpuDevice>(/*threads=*/1),
                                .cache = cache.get(),
                                .cache_all = true,
                                .events = reports.Events()};
  };
  {
    EpochRunner first(runner_options());
    first.Begin(task(1, 1, 0, *links));
    ASSERT_EQ(reports.Next().kind, Report::kReady);
    const absl::Duration end = Clock::Real()->Now() + absl::Seconds(60);
    while (first.progress().unwritten_images > 0 && Clock::Real()->Now() < end) std::this_thread::yield();
    EXPECT_THAT(layers_read(), ::testing::IsEmpty()) << "it packs";
  }
  const auto kept = ListShardCache(directory.path());
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->size(), 5u);

  EpochRunner second(runner_options());
  second.Begin(task(2, 2, 1, *absent));
  ASSERT_TRUE(WaitUntilLinking(second)) << "it waits for a peer that never comes";
  std::set<std::string> half = layers_read();
  EXPECT_THAT(half, ::testing::IsSupersetOf({"layer 2", "layer 3"}));
  EXPECT_FALSE(half.contains("layer 0") || half.contains("layer 1"));
  second.Begin(task(3, 1, 0, *links));
  Report report = reports.Next();
  ASSERT_EQ(report.kind, Report::kReady) << report.status;
  EXPECT_THAT(layers_read(), ElementsAre("layer 0", "layer 1", "outside the layers"));
  // All of it is there.
  second.Begin(task(4, 1, 0, *links));
  report = reports.Next();
  ASSERT_EQ(report.kind, Report::kReady) << report.status;
  EXPECT_THAT(layers_read(), ::testing::IsEmpty());
}

std::shared_ptr<Device> EmulatedGpu() {
  return std::make_shared<GpuDevice>(gpu::MakeEmulatedRuntime({}), /*threads=*/1);
}

EpochTask GpuTask(uint64_t epoch, int ranks, int rank, const std::vector<Worker*>& workers) {
  EpochTask task = Task(epoch, ranks, rank, workers);
  task.assignment.numeric.kernel_level = "cuda_sm90";
  return task;
}

// Who hears of it looks at the device, and would wait for work that waits for a peer.
TEST(EpochRunner, NcclHasEndedWhenAFailureIsReported) {
  const FakeNccl fake(FAKE_NCCL);
  const NcclUse nccl{.library = fake.library(), .required = true};
  Worker a(EmulatedGpu(), nccl), b(EmulatedGpu(), nccl);
  a.reports.on_failure = [&] { EXPECT_EQ(fake.Get("live"), 1) << "b's is left"; };
  a.runner.Begin(GpuTask(1, 2, 0, {&a, &b}));
  b.runner.Begin(GpuTask(1, 2, 1, {&a, &b}));
  Report ready = a.reports.Next();
  ASSERT_EQ(ready.kind, Report::kReady) << ready.status;
  ASSERT_EQ(b.reports.Next().kind, Report::kReady);
  EXPECT_EQ(fake.Get("live"), 2);
  Step step = FirstStep(1);
  step.id.value = 5;
  ASSERT_TRUE(a.runner.Add(step));
  EXPECT_EQ(a.reports.Next().kind, Report::kFailed);
  EXPECT_EQ(fake.Get("foreign_calls"), 0) << "a thread that is not the executor's calls NCCL";
}

// Its threads take the mask of the one that calls it, which was one CPU where workers share out a machine.
TEST(EpochRunner, NcclsThreadsMayRunOnAllCpusOfTheWorker) {
  const FakeNccl fake(FAKE_NCCL);
  const NcclUse nccl{.library = fake.library(), .required = true};
  const std::vector<int> cpus = AllowedCpus();
  Worker a(EmulatedGpu(), nccl, cpus), b(EmulatedGpu(), nccl, cpus);
  a.runner.Begin(GpuTask(1, 2, 0, {&a, &b}));
  b.runner.Begin(GpuTask(1, 2, 1, {&a, &b}));
  ASSERT_EQ(a.reports.Next().kind, Report::kReady);
  ASSERT_EQ(b.reports.Next().kind, Report::kReady);
  EXPECT_EQ(fake.Get("cpus"), static_cast<int>(cpus.size()));
}

// A GPU that stops when it is to run something, once it is told to.
class StoppingRuntime : public gpu::ForwardingRuntime {
 public:
  StoppingRuntime() : ForwardingRuntime(gpu::MakeEmulatedRuntime({})) {}
  std::atomic<bool> stops = false;
  std::latch stopped{1}, goes_on{1};

  void Run(const gpu::LaunchList& list) override {
    if (stops.exchange(false)) {
      stopped.count_down();
      goes_on.wait();
    }
    ForwardingRuntime::Run(list);
  }
};

// Of three ranks the third stops in the middle of a step, where all wait for NCCL. The first of their peers
// was said to be waited for, and to have failed.
class NcclNamesNobody : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::vector<Worker*> workers = {&a_, &b_, c_.get()};
    for (int rank = 0; rank < 3; ++rank) workers[rank]->runner.Begin(GpuTask(1, 3, rank, workers));
    for (Worker* worker : workers) {
      const Report report = worker->reports.Next();
      ASSERT_EQ(report.kind, Report::kReady) << report.status;
    }
    for (Worker* worker : workers) ASSERT_TRUE(worker->runner.Add(FirstStep(1)));
    ASSERT_EQ(a_.reports.Next().kind, Report::kResult);
    gpu_->stops = true;
    Step step{.epoch = {1}, .id = {2}};
    step.entries.push_back({.sequence = {1}, .position = 3, .count = 1, .new_tokens = {4}, .sample = true});
    for (Worker* worker : workers) ASSERT_TRUE(worker->runner.Add(step));
    gpu_->stopped.wait();
    for (Worker* worker : {&a_, &b_}) {
      while (worker->runner.progress().waiting_for != kSomePeer) std::this_thread::yield();
    }
  }
  ~NcclNamesNobody() override {
    if (!gpu_->goes_on.try_wait()) gpu_->goes_on.count_down();
    for (const char* what : {"async_error", "error_of"}) fake_.Set(what, 0);
  }
  // What rank 0 says when NCCL fails there.
  int BlamedByTheFirst(int error = nccl::kRemoteError,
                       absl::StatusCode code = absl::StatusCode::kUnavailable) {
    fake_.Set("error_of", 1);
    fake_.Set("async_error", error);
    const Report report = a_.reports.Next();
    EXPECT_EQ(report.kind, Report::kFailed);
    EXPECT_EQ(report.status.code(), code) << report.status;
    return report.blamed;
  }

  const FakeNccl fake_{FAKE_NCCL};
  const NcclUse nccl_{.library = fake_.library(), .required = true};
  const std::shared_ptr<StoppingRuntime> gpu_ = std::make_shared<StoppingRuntime>();
  Worker a_{EmulatedGpu(), nccl_}, b_{EmulatedGpu(), nccl_};
  std::unique_ptr<Worker> c_ =
      std::make_unique<Worker>(std::make_shared<GpuDevice>(gpu_, /*threads=*/1), nccl_);
};

TEST_F(NcclNamesNobody, WhoIsSilentIsNotGuessed) {
  EXPECT_EQ(c_->runner.progress().state, WorkerState::kStep);
  EXPECT_EQ(c_->runner.progress().waiting_for, -1) << "it waits for nobody, and the coordinator sees it";
  EXPECT_EQ(BlamedByTheFirst(), kSomePeer);
}

// As for want of room in /dev/shm: no peer has to do with it, and whoever says so rests.
TEST_F(NcclNamesNobody, AFaultOfItsOwnIsNoPeers) {
  EXPECT_EQ(BlamedByTheFirst(nccl::kSystemError, absl::StatusCode::kInternal), -1);
}

TEST_F(NcclNamesNobody, WhoIsGoneIsNamed) {
  c_->runner.End({1}, "gone");
  gpu_->goes_on.count_down();
  c_.reset();
  EXPECT_EQ(BlamedByTheFirst(), 2);
}

// GPU workers agree on how to talk before they are ready.
TEST(EpochRunner, AnEpochCanBeEndedWhileGpuWorkersAgree) {
  Worker a(EmulatedGpu(), {}), silent;
  EpochTask task = GpuTask(1, 2, 0, {&a, &silent});
  const LinkPeer first = task.peers[0];
  a.runner.Begin(std::move(task));
  const auto links =
      silent.links->Connect({.epoch = {1}, .secret = "secret", .own_index = 1, .peers = {first}});
  ASSERT_TRUE(links.ok()) << links.status();  // and never says what it has
  a.runner.End({1}, "given up");
  a.runner.Begin(GpuTask(2, 1, 0, {&a}));
  const Report report = a.reports.Next();
  EXPECT_EQ(report.kind, Report::kReady) << report.status;
  EXPECT_EQ(report.epoch.value, 2u);
}

}  // namespace
}  // namespace bellwether
