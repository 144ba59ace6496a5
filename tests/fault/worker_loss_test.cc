// A worker is killed or stopped in the middle of answers: every stream hears of it, soon, and by name; health
// says so; and when a worker is there again the same coordinator serves again: the streams go on where they
// were, and their answers are as if nothing had happened.

#include <signal.h>
#include <stdlib.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "common/clock.h"
#include "common/testing/sanitizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/raw_calls.h"
#include "tests/e2e/test_cluster.h"
#include "tests/e2e/tiny_checkpoint.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "random:llama?layers=3,heads=5,hidden=80,kv_heads=5,positions=60000:fp32";
constexpr char kGpuModel[] = "random:llama?layers=2,heads=4,hidden=64,kv_heads=2,ffn=96,positions=60000:bf16";
constexpr int kVocab = 160;
constexpr int kStreams = 4;

// The promise is 5 s in a release build; sanitizers slow everything, the heartbeats not.
const absl::Duration kPromise = absl::Seconds(IsSanitized() ? 20 : 5);

struct Loss {
  const char* name;
  int ranks, stages;
  int victim;
  int signal;
  bool separate_hosts = false;
  const char* device = "cpu";
};
constexpr Loss kLosses[] = {
    {"kill_tensor_parallel", 3, 1, 2, SIGKILL},
    {"kill_first_stage", 1, 2, 0, SIGKILL},
    {"kill_grpc_links", 1, 2, 1, SIGKILL, true},
    {"stop_tensor_parallel", 2, 1, 1, SIGSTOP},
    {"stop_last_stage", 1, 2, 1, SIGSTOP},
    {"stop_the_only_worker", 1, 1, 0, SIGSTOP},
    {"stop_grpc_links", 1, 2, 1, SIGSTOP, true},
    {"stop_grpc_ranks", 2, 1, 1, SIGSTOP, true},
    // GPUs, whose rows go by way of the host's memory.
    {"kill_gpu_rank", 2, 1, 1, SIGKILL, false, "emulated"},
    {"stop_gpu_stage", 1, 2, 1, SIGSTOP, false, "emulated"},
};
void PrintTo(const Loss& loss, std::ostream* out) { *out << loss.name; }

PromptInput StreamPrompt(int stream) { return Ids(SomeTokens(10, stream, kVocab)); }

// Sampled, so that a seed or a position that is off shows.
GenerationOptions StreamOptions(int stream, int tokens) {
  return {.max_tokens = tokens, .temperature = 1, .seed = 100 + stream, .ignore_eos = true, .logprobs = 1};
}

// Streams that do not end by themselves, not while anybody has patience: each takes `tokens_after` tokens
// after it was interrupted, then hangs up.
class EndlessStreams {
 public:
  explicit EndlessStreams(TestCluster& cluster, int tokens_after = 20)
      : begun_(kStreams), noticed_(kStreams), answers_(kStreams) {
    for (int i = 0; i < kStreams; ++i) {
      threads_.emplace_back([this, &cluster, i, tokens_after] {
        CollectedAnswer& answer = answers_[i];
        int after = 0;
        const auto on_chunk = [&](const AnswerChunk& chunk) {
          answer.Add(chunk);
          if (answer.messages == 2) begun_.DecrementCount();
          if (!chunk.interruption.empty() && answer.interruptions.size() == 1) noticed_.DecrementCount();
          if (!answer.interruptions.empty()) after += static_cast<int>(chunk.tokens.size());
          return after < tokens_after;
        };
        answer.status = cluster.client().Generate(StreamPrompt(i), StreamOptions(i, 59000),
                                                  {.timeout = kPatience}, on_chunk);
        if (answer.messages < 2) begun_.DecrementCount();
        if (answer.interruptions.empty()) noticed_.DecrementCount();
      });
    }
    begun_.Wait();
  }
  // Until all have been told that their workers are lost, or have ended.
  void WaitForNotices() { noticed_.Wait(); }
  std::vector<CollectedAnswer> Wait() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return answers_;
  }

 private:
  absl::BlockingCounter begun_, noticed_;
  std::vector<CollectedAnswer> answers_;
  std::vector<std::thread> threads_;
};

// They went on after they lost that worker, and are what the cluster that serves now answers in one go.
void ExpectSurvived(const std::vector<CollectedAnswer>& streams, int victim, TestCluster& cluster) {
  for (size_t i = 0; i < streams.size(); ++i) {
    const CollectedAnswer& stream = streams[i];
    SCOPED_TRACE(testing::Message() << "stream " << i);
    EXPECT_EQ(stream.status.code(), absl::StatusCode::kCancelled) << stream.status << cluster.Logs();
    EXPECT_EQ(stream.broken_rule, "");
    ASSERT_FALSE(stream.interruptions.empty());
    EXPECT_THAT(stream.interruptions[0], HasSubstr(TestCluster::WorkerName(victim)));
    ASSERT_EQ(stream.choices.size(), 1);
    const int tokens = static_cast<int>(stream.choices[0].tokens.size());
    CollectedAnswer whole = Generate(cluster.client(), StreamPrompt(static_cast<int>(i)),
                                     StreamOptions(static_cast<int>(i), tokens));
    ASSERT_TRUE(whole.status.ok()) << whole.status << cluster.Logs();
    whole.choices[0].finish_reason.clear();  // the stream had not finished
    EXPECT_EQ(whole.choices, stream.choices);
  }
}

CollectedAnswer Ask(TestCluster& cluster, int tokens = 40) {
  return Generate(cluster.client(), Ids(SomeTokens(tokens + 10, 7, kVocab)),
                  {.max_tokens = tokens, .temperature = 1, .seed = 5, .ignore_eos = true, .logprobs = 2});
}

bool HealthBecomes(const std::string& address, const std::string& wanted) {
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  while (HealthOf(address) != wanted) {
    if (Clock::Real()->Now() > end) return false;
  }
  return true;
}

class WorkerLoss : public ::testing::TestWithParam<Loss> {};

TEST_P(WorkerLoss, StreamsSurvive) {
  const Loss& loss = GetParam();
  const bool gpu = std::string(loss.device) != "cpu";
  const int asked = gpu ? 5 : 40;  // emulated ones take milliseconds a token
  auto started = TestCluster::Start({.model = gpu ? kGpuModel : kModel,
                                     .tensor_parallel = loss.ranks,
                                     .pipeline_parallel = loss.stages,
                                     .coordinator_flags = {"--context-tokens", "60000"},
                                     .device_of = [&](int) { return loss.device; },
                                     .separate_hosts = loss.separate_hosts});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster, asked);
  ASSERT_TRUE(before.status.ok()) << before.status;

  EndlessStreams streams(cluster, /*tokens_after=*/gpu ? 5 : 20);
  const absl::Duration start = Clock::Real()->Now();
  cluster.worker(loss.victim).Signal(loss.signal);
  streams.WaitForNotices();
  const absl::Duration took = Clock::Real()->Now() - start;
  EXPECT_LE(took, kPromise);
  RecordProperty("seconds", absl::StrCat(absl::ToDoubleSeconds(took)));
  if (HasFailure()) printf("%s\n", cluster.Logs().c_str());
  EXPECT_EQ(HealthOf(cluster.address()), "NOT_SERVING");
  const CollectedAnswer refused = Ask(cluster, asked);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kUnavailable) << refused.status;

  ASSERT_TRUE(cluster.StartWorker(loss.victim).ok());
  const auto model = cluster.WaitUntilServing();
  ASSERT_TRUE(model.ok()) << model.status() << cluster.Logs();
  EXPECT_EQ(HealthOf(cluster.address()), "SERVING");
  ExpectSurvived(streams.Wait(), loss.victim, cluster);
  const CollectedAnswer after = Ask(cluster, asked);
  EXPECT_TRUE(after.status.ok()) << after.status << cluster.Logs();
  EXPECT_EQ(after.choices, before.choices);
  // Whoever is lost, the others keep their places: they have nothing to load. Hosts are as fast as their
  // first worker was measured, and on a busy machine another layout may be much faster than the held one.
  if (loss.separate_hosts && loss.stages > 1) return;
  const int all = loss.ranks * loss.stages;
  EXPECT_THAT(cluster.Logs(), HasSubstr(absl::StrCat(all - 1, " of ", all, " workers keep their weights")));
}

INSTANTIATE_TEST_SUITE_P(All, WorkerLoss, ::testing::ValuesIn(kLosses),
                         [](const auto& info) { return info.param.name; });

// Nobody is asking, and still it shows.
TEST(WorkerLossWhileIdle, TurnsHealthAndIsMended) {
  auto started = TestCluster::Start({.model = kModel, .pipeline_parallel = 2});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster);
  for (int victim : {1, 0}) {
    cluster.worker(victim).Signal(SIGKILL);
    ASSERT_TRUE(HealthBecomes(cluster.address(), "NOT_SERVING")) << cluster.Logs();
    EXPECT_THAT(cluster.client().GetModel()->not_serving_reason, HasSubstr(TestCluster::WorkerName(victim)));
    ASSERT_TRUE(cluster.StartWorker(victim).ok());
    const auto model = cluster.WaitUntilServing();
    ASSERT_TRUE(model.ok()) << model.status() << cluster.Logs();
    EXPECT_EQ(Ask(cluster).choices, before.choices);
  }
}

// One that waits takes the place of one that is lost, without anybody's help.
TEST(WorkerLossWithASpare, TheSpareTakesOver) {
  auto started = TestCluster::Start({.model = kModel, .tensor_parallel = 2});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster);
  auto spare = cluster.StartStranger(kModel);
  ASSERT_TRUE(spare.ok()) << spare.status();
  EndlessStreams streams(cluster);
  cluster.worker(0).Signal(SIGKILL);
  ExpectSurvived(streams.Wait(), 0, cluster);
  EXPECT_EQ(Ask(cluster).choices, before.choices);
}

// A machine that is gone for good: those that are left serve, and all of them when it is back after all.
TEST(WorkerLossForGood, FewerServeAndStreamsGoOnBothTimes) {
  auto started = TestCluster::Start(
      {.model = kModel,
       .tensor_parallel = 0,
       .pipeline_parallel = 0,
       .workers = 3,
       .coordinator_flags = {"--context-tokens", "60000", "--workers-min", "2", "--replace-seconds", "0.2"}});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  {
    EndlessStreams streams(cluster);
    cluster.worker(1).Signal(SIGKILL);
    ExpectSurvived(streams.Wait(), 1, cluster);
  }
  EXPECT_EQ(HealthOf(cluster.address()), "SERVING");
  EXPECT_THAT(cluster.Logs(), HasSubstr("2 of 3 have joined, 2 do after 0.2 s"));
  EndlessStreams streams(cluster);
  ASSERT_TRUE(cluster.StartWorker(1).ok());
  ExpectSurvived(streams.Wait(), 1, cluster);
  EXPECT_THAT(cluster.Logs(), HasSubstr("has joined: 3 workers serve from now on, where 2 did"));
}

// Patience is the server's to choose: none, or a second.
TEST(WorkerLossWithoutPatience, EndsStreamsAndNamesTheWorker) {
  for (const char* seconds : {"0", "1"}) {
    SCOPED_TRACE(seconds);
    auto started = TestCluster::Start(
        {.model = kModel, .pipeline_parallel = 2, .coordinator_flags = {"--resume-seconds", seconds}});
    ASSERT_TRUE(started.ok()) << started.status();
    TestCluster& cluster = **started;
    EndlessStreams streams(cluster);
    cluster.worker(1).Signal(SIGKILL);
    const bool waits = seconds != std::string("0");
    for (const CollectedAnswer& stream : streams.Wait()) {
      EXPECT_EQ(stream.status.code(), absl::StatusCode::kUnavailable) << stream.status;
      EXPECT_THAT(std::string(stream.status.message()), HasSubstr(TestCluster::WorkerName(1)));
      EXPECT_EQ(absl::StrContains(stream.status.message(), "service was not back within 1s"), waits);
      EXPECT_EQ(stream.interruptions.size(), waits ? 1 : 0);
    }
  }
}

// It has the model's id, which rests on samples, but not all of its values.
TEST(WorkerWithOtherWeights, IsRefusedAndTheTensorNamed) {
  const TinyCheckpoint model("smollm", "");
  TinyCheckpoint other("smollm", "");
  other.DamageEmbedding(/*token=*/50);
  auto started = TestCluster::Start({.model = model.path()});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster);
  cluster.worker(0).Signal(SIGKILL);
  auto stranger = cluster.StartStranger(other.path());
  ASSERT_TRUE(stranger.ok()) << stranger.status();
  ASSERT_TRUE(stranger->WaitFor(kPatience)) << cluster.Logs();
  EXPECT_FALSE(stranger->ended_well());
  EXPECT_THAT(cluster.Logs(), HasSubstr("worker stranger has other values of embedding weight, rows 0-419"));
  ASSERT_TRUE(cluster.StartWorker(0).ok());
  const auto served = cluster.WaitUntilServing();
  ASSERT_TRUE(served.ok()) << served.status() << cluster.Logs();
  EXPECT_EQ(Ask(cluster).choices, before.choices);
}

// NCCL may keep an executor for good when an epoch ends: the process ends then, as the coordinator can do
// nothing for it. Each of these has a test double of its own, so that they never meet, and the epoch ends
// while both join.
TEST(NcclThatHangs, EndsItsProcess) {
  if (getenv("BELLWETHER_ALL_LAYOUTS") == nullptr) GTEST_SKIP() << "it has ten seconds for its abort";
  ASSERT_EQ(setenv("FAKE_NCCL_ABORT_HANGS", "1", 1), 0);
  auto launched = TestCluster::Launch(
      {.model = kGpuModel,
       .tensor_parallel = 2,
       .worker_flags = {"--device", "emulated", "--collectives", "nccl", "--nccl-library", FAKE_NCCL}});
  ASSERT_EQ(unsetenv("FAKE_NCCL_ABORT_HANGS"), 0);
  ASSERT_TRUE(launched.ok()) << launched.status();
  TestCluster& cluster = **launched;
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  const auto both_join = testing::AllOf(HasSubstr("rank 0 of 2 joins"), HasSubstr("rank 1 of 2 joins"));
  while (!testing::Matches(both_join)(cluster.Logs()) && Clock::Real()->Now() < end) {
  }
  cluster.worker(1).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(0).WaitFor(kPatience)) << cluster.Logs();
  EXPECT_EQ(cluster.worker(0).ending(), "exit code 3") << cluster.Logs();
  EXPECT_THAT(cluster.Logs(), HasSubstr("NCCL has not ended its work of the last epoch"));
}

// A worker that was only slow to wake finds that the epoch is over, and joins again by itself.
TEST(WorkerPause, AStoppedWorkerThatGoesOnJoinsAgain) {
  auto started = TestCluster::Start({.model = kModel, .tensor_parallel = 2});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster);
  cluster.worker(1).Signal(SIGSTOP);
  ASSERT_TRUE(HealthBecomes(cluster.address(), "NOT_SERVING")) << cluster.Logs();
  cluster.worker(1).Signal(SIGCONT);
  const auto model = cluster.WaitUntilServing();
  ASSERT_TRUE(model.ok()) << model.status() << cluster.Logs();
  const CollectedAnswer after = Ask(cluster);
  EXPECT_TRUE(after.status.ok()) << after.status;
  EXPECT_EQ(after.choices, before.choices);
}

// Workers outlive their coordinator: they try again until one answers at its address.
TEST(CoordinatorLoss, WorkersJoinARestartedCoordinator) {
  auto started = TestCluster::Start({.model = kModel, .tensor_parallel = 2});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const CollectedAnswer before = Ask(cluster);
  {
    EndlessStreams streams(cluster);
    cluster.coordinator().Signal(SIGKILL);
    for (const CollectedAnswer& stream : streams.Wait())
      EXPECT_EQ(stream.status.code(), absl::StatusCode::kUnavailable) << stream.status;
  }
  ASSERT_TRUE(cluster.coordinator().WaitFor(kPatience));
  ASSERT_TRUE(cluster.StartCoordinator().ok());
  const auto model = cluster.WaitUntilServing();
  ASSERT_TRUE(model.ok()) << model.status() << cluster.Logs();
  for (int i = 0; i < cluster.workers(); ++i) EXPECT_TRUE(cluster.worker(i).Running()) << i;
  const CollectedAnswer after = Ask(cluster);
  EXPECT_TRUE(after.status.ok()) << after.status;
  EXPECT_EQ(after.choices, before.choices);
  EXPECT_THAT(cluster.Logs(), HasSubstr("2 of 2 workers keep their weights"));
}

}  // namespace
}  // namespace bellwether
