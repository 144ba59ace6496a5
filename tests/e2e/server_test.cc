// The coordinator as a server: health, reflection, the bounded queue, SIGTERM, workers that lack the model.

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/testing/sanitizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/raw_calls.h"
#include "tests/e2e/test_cluster.h"
#include "tests/e2e/tiny_checkpoint.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// Contexts long enough that an answer which fills one is still running when a test has done its work.
constexpr char kLongAnswers[] = "random:llama?positions=60000:fp32";
constexpr int kVocab = 160;

TEST(Server, HealthAndReflection) {
  auto cluster = TestCluster::Start({.model = "random:llama:fp32"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(HealthOf((*cluster)->address()), "SERVING");
  EXPECT_EQ(HealthOf((*cluster)->address(), "bellwether.v1.Inference"), "SERVING");
  const std::string services = ReflectedServices((*cluster)->address());
  EXPECT_THAT(services, HasSubstr("bellwether.v1.Inference"));
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
  EXPECT_THAT(services, ::testing::Not(HasSubstr("bellwether.v1.Cluster")))
      << "workers have a port of their own";
}

// A generation in a thread of its own, whose stream is known to have begun.
class RunningAnswer {
 public:
  RunningAnswer(const std::string& address, const GenerationOptions& options)
      : client_(address), thread_([this, options] {
          answer.status =
              client_.Generate(Ids(SomeTokens(5, 1, kVocab)), options, {.cancellation = &cancellation_},
                               [this](const AnswerChunk& chunk) {
                                 answer.Add(chunk);
                                 if (!begun_.HasBeenNotified()) begun_.Notify();
                                 return true;
                               });
          if (!begun_.HasBeenNotified()) begun_.Notify();
          ended_.Notify();
        }) {
    begun_.WaitForNotification();
  }
  ~RunningAnswer() {
    cancellation_.Cancel();
    Wait();
  }
  void Wait() {
    if (thread_.joinable()) thread_.join();
  }
  bool ended() const { return ended_.HasBeenNotified(); }
  CollectedAnswer answer;  // after Wait()

 private:
  InferenceClient client_;
  Cancellation cancellation_;
  absl::Notification begun_, ended_;
  std::thread thread_;
};

// A damaged checkpoint: the embedding of one token is not a number. Who asks about that token gets an error,
// everybody else the answer that they would have got alone.
TEST(Server, ANaNEndsOnlyTheRequestThatMetIt) {
  TinyCheckpoint checkpoint("smollm", "");
  constexpr TokenId kDamaged = 7;
  checkpoint.DamageEmbedding(kDamaged);
  auto cluster = TestCluster::Start({.model = checkpoint.path(), .pipeline_parallel = 2});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const GenerationOptions all_of_it{
      .max_tokens = 1000, .temperature = 0, .logit_bias = {{kDamaged, -100.0f}}, .ignore_eos = true};
  const CollectedAnswer alone = Generate((*cluster)->client(), Ids(SomeTokens(5, 1, kVocab)), all_of_it);
  ASSERT_TRUE(alone.status.ok()) << alone.status;
  RunningAnswer beside((*cluster)->address(), all_of_it);  // its first token has come
  const CollectedAnswer failed =
      Generate((*cluster)->client(), Ids({1, kDamaged, 3}), {.max_tokens = 4, .temperature = 0, .n = 3});
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kInternal) << failed.status;
  EXPECT_THAT(std::string(failed.status.message()), HasSubstr("NaN"));
  const auto score = (*cluster)->client().Score(Ids({1, kDamaged, 3}), {});
  EXPECT_EQ(score.status().code(), absl::StatusCode::kInternal) << score.status();
  beside.Wait();
  EXPECT_TRUE(beside.answer.status.ok()) << beside.answer.status;
  EXPECT_EQ(beside.answer.choices[0].tokens, alone.choices[0].tokens);
}

// A short answer, asked for until the queue takes it.
absl::Status AnswerOnceThereIsRoom(TestCluster& cluster) {
  absl::Status status = absl::ResourceExhaustedError("");
  while (status.code() == absl::StatusCode::kResourceExhausted) {
    status = Generate(cluster.client(), Ids({1, 2, 3}), {.max_tokens = 1}).status;
  }
  return status;
}

TEST(Server, AFullQueueRefuses) {
  auto cluster = TestCluster::Start({.model = kLongAnswers,
                                     .coordinator_flags = {"--context-tokens", "60000", "--sequences-max",
                                                           "2", "--requests-waiting-max", "0"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const GenerationOptions endless{.max_tokens = 59000, .temperature = 0, .ignore_eos = true};
  {
    RunningAnswer first((*cluster)->address(), endless), second((*cluster)->address(), endless);
    const CollectedAnswer refused = Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 1});
    EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted) << refused.status;
    EXPECT_THAT(std::string(refused.status.message()), HasSubstr("2"));
  }
  EXPECT_TRUE(AnswerOnceThereIsRoom(**cluster).ok());
}

// Strangers used to fill the disk: a line for each.
TEST(Server, RefusalsDoNotFloodTheLog) {
  auto cluster = TestCluster::Start({.model = "random:llama:fp32"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const absl::Duration begin = Clock::Real()->Now();
  constexpr int kRefusals = 1000;
  for (int i = 0; i < kRefusals; ++i) {
    ASSERT_FALSE(Generate((*cluster)->client(), Ids({-1}), {.max_tokens = 1}).status.ok());
  }
  int lines = 0;
  const std::string logs = (*cluster)->Logs();
  for (size_t at = logs.find(" ended: "); at != std::string::npos; at = logs.find(" ended: ", at + 1))
    ++lines;
  EXPECT_GT(lines, 0);
  // A burst, and then one a second.
  EXPECT_LT(lines, 30 + absl::ToInt64Seconds(Clock::Real()->Now() - begin)) << logs;
}

// Whoever cancels or lets a deadline pass leaves the queue a moment later, not when the answer would have
// been complete: another one that began before and is no longer than theirs still runs when their place is
// free.
TEST(Server, CancelAndDeadlineFreeTheirPlaceAtOnce) {
  auto cluster = TestCluster::Start({.model = kLongAnswers,
                                     .coordinator_flags = {"--context-tokens", "60000", "--sequences-max",
                                                           "2", "--requests-waiting-max", "0"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const GenerationOptions endless{.max_tokens = 59000, .temperature = 0, .ignore_eos = true};
  RunningAnswer beside((*cluster)->address(), endless);
  { const RunningAnswer cancelled((*cluster)->address(), endless); }
  EXPECT_TRUE(AnswerOnceThereIsRoom(**cluster).ok());
  EXPECT_FALSE(beside.ended());
  const CollectedAnswer late = Generate((*cluster)->client(), Ids(SomeTokens(5, 1, kVocab)), endless,
                                        {.timeout = absl::Milliseconds(300)});
  EXPECT_EQ(late.status.code(), absl::StatusCode::kDeadlineExceeded) << late.status;
  EXPECT_TRUE(AnswerOnceThereIsRoom(**cluster).ok());
  EXPECT_FALSE(beside.ended());
}

// A signal takes a moment; until then requests are answered. OK if they are for ever.
absl::Status FirstRefusal(InferenceClient& client) {
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  absl::Status refused;
  while (refused.ok() && Clock::Real()->Now() < end) {
    refused = Generate(client, Ids({1, 2, 3}), {.max_tokens = 1}).status;
  }
  return refused;
}

TEST(Server, SigtermFinishesWhatRunsAndRefusesTheRest) {
  auto cluster =
      TestCluster::Start({.model = kLongAnswers, .coordinator_flags = {"--context-tokens", "60000"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  constexpr int kTokens = 4000;
  RunningAnswer running((*cluster)->address(), {.max_tokens = kTokens, .temperature = 0, .ignore_eos = true});
  (*cluster)->coordinator().Signal(SIGTERM);
  const absl::Status refused = FirstRefusal((*cluster)->client());
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
  running.Wait();
  EXPECT_TRUE(running.answer.status.ok()) << running.answer.status << (*cluster)->Logs();
  ASSERT_EQ(running.answer.choices.size(), 1u);
  EXPECT_EQ(running.answer.choices[0].tokens.size(), static_cast<size_t>(kTokens));
  EXPECT_TRUE((*cluster)->coordinator().WaitFor(kPatience));
  EXPECT_TRUE((*cluster)->coordinator().ended_well()) << (*cluster)->coordinator().ending();
}

TEST(Server, SigtermOfAWorkerEndsIt) {
  auto cluster = TestCluster::Start({.model = "random:llama:fp32"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  (*cluster)->worker(0).Signal(SIGTERM);
  EXPECT_TRUE((*cluster)->worker(0).WaitFor(kPatience));
  EXPECT_TRUE((*cluster)->worker(0).ended_well()) << (*cluster)->worker(0).ending() << (*cluster)->Logs();
}

// Nobody loses an answer because a machine is taken away on purpose.
TEST(Server, SigtermOfAWorkerLetsRunningRequestsEnd) {
  auto cluster = TestCluster::Start(
      {.model = kLongAnswers, .pipeline_parallel = 2, .coordinator_flags = {"--context-tokens", "60000"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  constexpr int kTokens = 3000;
  RunningAnswer running((*cluster)->address(), {.max_tokens = kTokens, .temperature = 0, .ignore_eos = true});
  (*cluster)->worker(1).Signal(SIGTERM);
  const absl::Status refused = FirstRefusal((*cluster)->client());
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("worker sheep-1"));
  EXPECT_EQ(HealthOf((*cluster)->address()), "NOT_SERVING");
  running.Wait();
  EXPECT_TRUE(running.answer.status.ok()) << running.answer.status << (*cluster)->Logs();
  ASSERT_EQ(running.answer.choices.size(), 1u);
  EXPECT_EQ(running.answer.choices[0].tokens.size(), static_cast<size_t>(kTokens));
  EXPECT_TRUE((*cluster)->worker(1).WaitFor(kPatience));
  EXPECT_TRUE((*cluster)->worker(1).ended_well()) << (*cluster)->worker(1).ending() << (*cluster)->Logs();
  ASSERT_TRUE((*cluster)->StartWorker(1).ok());
  EXPECT_TRUE((*cluster)->WaitUntilServing().ok());
  EXPECT_TRUE(Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 1}).status.ok());
}

TEST(Server, ASecondSigtermEndsAWorkerAtOnce) {
  auto cluster = TestCluster::Start(
      {.model = kLongAnswers, .coordinator_flags = {"--context-tokens", "60000", "--resume-seconds", "0"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  RunningAnswer running((*cluster)->address(), {.max_tokens = 59000, .temperature = 0, .ignore_eos = true});
  (*cluster)->worker(0).Signal(SIGTERM);
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  while (HealthOf((*cluster)->address()) == "SERVING" && Clock::Real()->Now() < end)
    std::this_thread::yield();
  EXPECT_FALSE(running.ended());
  (*cluster)->worker(0).Signal(SIGTERM);
  EXPECT_TRUE((*cluster)->worker(0).WaitFor(kPatience));
  running.Wait();
  EXPECT_EQ(running.answer.status.code(), absl::StatusCode::kUnavailable) << running.answer.status;
}

// Another model would give other answers: refused for good, and those who serve do not notice.
TEST(Server, AWorkerWithAnotherModelIsRefused) {
  auto cluster = TestCluster::Start({.model = "random:llama:fp32"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::string served = (*cluster)->client().GetModel()->model_id;
  auto stranger = (*cluster)->StartStranger("random:llama:fp32:5");  // the same shape, other weights
  ASSERT_TRUE(stranger.ok()) << stranger.status();
  EXPECT_TRUE(stranger->WaitFor(kPatience));
  EXPECT_FALSE(stranger->ended_well());
  EXPECT_THAT((*cluster)->Logs(), HasSubstr(served.substr(0, 12))) << "both models are named";
  const CollectedAnswer answer = Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 4});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
}

// A worker that has a folder of checkpoints instead of one: who asks meanwhile is told what is missing, and
// once the model has been copied there it is served, with nothing started again.
TEST(Server, WorkersLookForTheModelUnderTheirRoot) {
  TinyCheckpoint checkpoint("smollm", "");
  const std::string root = checkpoint.path() + "/root";
  std::filesystem::create_directory(root);
  auto cluster =
      TestCluster::Launch({.model = checkpoint.path(), .pipeline_parallel = 2, .model_root = root});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  std::string reason;
  while (!absl::StrContains(reason, "none of the 0 checkpoints in " + root)) {
    const auto model = (*cluster)->client().GetModel();
    ASSERT_TRUE(model.ok()) << model.status() << (*cluster)->Logs();
    ASSERT_FALSE(model->serving);
    reason = model->not_serving_reason;
  }
  EXPECT_THAT(reason, HasSubstr("worker sheep-"));
  const CollectedAnswer early = Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 1});
  EXPECT_EQ(early.status.code(), absl::StatusCode::kUnavailable) << early.status;
  std::filesystem::copy(checkpoint.path(), root + "/copying");
  std::filesystem::rename(root + "/copying", root + "/copy");
  const auto served = (*cluster)->WaitUntilServing();
  ASSERT_TRUE(served.ok()) << served.status() << (*cluster)->Logs();
  EXPECT_TRUE(Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 4}).status.ok());
}

// The CPUs that each thread of a process may run on.
std::vector<std::vector<int>> CpusOfThreads(pid_t process) {
  std::vector<std::vector<int>> threads;
  for (const auto& thread : std::filesystem::directory_iterator(absl::StrCat("/proc/", process, "/task"))) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(std::stoi(thread.path().filename()), sizeof(mask), &mask) != 0)
      continue;  // it ended
    std::vector<int>& cpus = threads.emplace_back();
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
    }
  }
  return threads;
}

// Workers side by side compute on cores of their own: no thread leaves the worker's CPUs, and each of those
// has a computing thread tied to it. The one that runs the steps once had none.
TEST(Server, AWorkerKeepsToItsCpus) {
  const std::vector<int> allowed = AllowedCpus();
  for (size_t count = 1; count <= std::min<size_t>(2, allowed.size()); ++count) {
    const std::vector<int> cpus(allowed.end() - static_cast<ptrdiff_t>(count), allowed.end());
    auto cluster = TestCluster::Start({.model = "random:llama:fp32",
                                       .threads = static_cast<int>(count),
                                       .worker_flags = {"--cpus", absl::StrJoin(cpus, ",")}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    const auto threads = CpusOfThreads((*cluster)->worker(0).pid());
    for (const std::vector<int>& thread : threads) EXPECT_THAT(thread, ::testing::IsSubsetOf(cpus));
    for (const int cpu : cpus) EXPECT_THAT(threads, ::testing::Contains(std::vector<int>{cpu}));
  }
}

int64_t ResidentBytes(pid_t process) {
  std::ifstream file(absl::StrCat("/proc/", process, "/statm"));
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Reading a text of megabytes takes some hundred. The allocator used to keep a good part of it.
TEST(Server, TheMemoryOfBigTextsIsGivenBack) {
  if (IsSanitized()) GTEST_SKIP() << "what is freed stays in a sanitizer's quarantine";
  TinyCheckpoint checkpoint("smollm", "");
  auto cluster = TestCluster::Start({.model = checkpoint.path()});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_TRUE((*cluster)->client().Tokenize("a short text", false, false).ok());
  const pid_t coordinator = (*cluster)->coordinator().pid();
  const int64_t before = ResidentBytes(coordinator);
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([address = (*cluster)->address()] {
      // The answer may be larger than the client takes: it is made all the same.
      (void)InferenceClient(address).Tokenize(std::string(2 << 20, ' '), false, false);
    });
  }
  for (std::thread& client : clients) client.join();
  // gRPC frees a call's messages a moment after its end.
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  constexpr int64_t kKept = 32 << 20;
  while (ResidentBytes(coordinator) > before + kKept && Clock::Real()->Now() < end) std::this_thread::yield();
  EXPECT_LE(ResidentBytes(coordinator), before + kKept) << "was " << before;
}

// What is wrong is said on stderr, and the exit code is not 0.
TEST(Server, WrongFlagsAreRefused) {
  for (const char* flag : {"--no-such-flag", "--model=/no/such/model", "--listen=not an address"}) {
    auto coordinator = ChildProcess::Start(
        {.program = std::string(BELLWETHER_BIN) + "/bellwether-coordinator",
         .arguments = {"--model", "random:llama:fp32", "--listen", "127.0.0.1:0", "--worker-listen",
                       "127.0.0.1:0", "--http-listen", "127.0.0.1:0", flag},
         .log_file = "/dev/null"});
    ASSERT_TRUE(coordinator.ok()) << coordinator.status();
    EXPECT_TRUE(coordinator->WaitFor(kPatience)) << flag;
    EXPECT_FALSE(coordinator->ended_well()) << flag;
  }
}

}  // namespace
}  // namespace bellwether
