// Workers whose device is a GPU, as real processes. The emulator stands in for the card (--device emulated):
// a few tokens of tiny models take seconds on it.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "tests/e2e/test_cluster.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] =
    "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,head_dim=16,ffn=96,vocab=101:bf16";

TestClusterOptions Emulated(int ranks, int stages) {
  return {.model = kModel,
          .tensor_parallel = ranks,
          .pipeline_parallel = stages,
          .coordinator_flags = {"--context-tokens", "64"},
          .worker_flags = {"--device", "emulated"}};
}

CollectedAnswer Ask(TestCluster& cluster) {
  return Generate(cluster.client(), Ids(SomeTokens(9, 1, 101)),
                  {.max_tokens = 3, .temperature = 0.8, .seed = 5, .ignore_eos = true, .logprobs = 2});
}

TEST(Devices, GpuWorkersAnswerAsOneOfThem) {
  std::vector<CollectedAnswer> answers;
  for (const int ranks : {1, 2}) {
    auto cluster = TestCluster::Start(Emulated(ranks, 1));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    EXPECT_EQ((*cluster)->client().GetModel()->kernel_level, "cuda_sm90");
    EXPECT_THAT((*cluster)->Logs(), HasSubstr("the GPU is an emulated one"));
    answers.push_back(Ask(**cluster));
    ASSERT_TRUE(answers.back().status.ok()) << answers.back().status << (*cluster)->Logs();
    EXPECT_EQ(answers.back().broken_rule, "");
    ASSERT_EQ(answers.back().choices.at(0).tokens.size(), 3u);
  }
  EXPECT_TRUE(answers[0].choices[0] == answers[1].choices[0]);
}

// Twelve megabytes of layers in a card that may use ten: from the memory of its host, or from a drive.
TEST(Devices, AGpuStreamsWhatItsMemoryDoesNotHold) {
  const testing_files::TemporaryDirectory directory;
  struct Way {
    std::vector<std::string> coordinator, worker;
    std::string log;
  };
  const std::vector<std::string> small = {"--device-memory-fraction", "0.01"};
  std::vector<CollectedAnswer> answers;
  for (const auto& [coordinator, worker, log] :
       std::vector<Way>{{{}, {}, "0 of them"},
                        {small, {}, "of them in the host's memory"},
                        {{"--device-memory-fraction", "0.01", "--offload", "nvme"},
                         {"--shard-cache", directory.path()},
                         "of them on the drive"}}) {
    TestClusterOptions options = Emulated(1, 1);
    options.model = "random:llama?hidden=256,layers=6,heads=4,kv_heads=4,head_dim=64,ffn=1024,vocab=101:bf16";
    options.coordinator_flags.insert(options.coordinator_flags.end(), {"--step-tokens", "32"});
    options.coordinator_flags.insert(options.coordinator_flags.end(), coordinator.begin(), coordinator.end());
    options.worker_flags.insert(options.worker_flags.end(), worker.begin(), worker.end());
    auto cluster = TestCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    EXPECT_THAT((*cluster)->Logs(), HasSubstr(log));
    answers.push_back(Ask(**cluster));
    ASSERT_TRUE(answers.back().status.ok()) << answers.back().status << (*cluster)->Logs();
  }
  EXPECT_TRUE(answers[1].choices.at(0) == answers[0].choices.at(0));
  EXPECT_TRUE(answers[2].choices.at(0) == answers[0].choices.at(0));
}

// One stage on an emulated GPU, one on the CPU: a pipeline when the coordinator is told so, else workers that
// wait for their like.
TEST(Devices, GpuAndCpuStagesShareAPipelineWhenAsked) {
  TestClusterOptions options = Emulated(1, 2);
  options.device_of = [](int worker) { return worker == 0 ? "emulated" : "cpu"; };
  options.worker_flags.clear();
  options.coordinator_flags.push_back("--mix-devices");
  auto cluster = TestCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::string level = (*cluster)->client().GetModel()->kernel_level;
  EXPECT_THAT(level, HasSubstr("cuda_sm90"));
  EXPECT_THAT(level, HasSubstr(", "));
  const CollectedAnswer answer = Ask(**cluster);
  ASSERT_TRUE(answer.status.ok()) << answer.status << (*cluster)->Logs();
  EXPECT_EQ(answer.broken_rule, "");
  EXPECT_TRUE(Ask(**cluster).choices.at(0) == answer.choices.at(0));
}

TEST(Devices, GpuAndCpuWorkersWaitForTheirLike) {
  TestClusterOptions options = Emulated(1, 2);
  options.worker_flags.clear();
  options.device_of = [](int worker) { return worker == 0 ? "emulated" : "cpu"; };
  auto cluster = TestCluster::Launch(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  std::string reason;
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  while (reason.find("device class") == std::string::npos && Clock::Real()->Now() < end) {
    const auto model = (*cluster)->client().GetModel();
    if (model.ok()) reason = model->not_serving_reason;
  }
  EXPECT_THAT(reason, HasSubstr("1 of 2 have joined, and 1 of another device class (--mix-devices"));
}

TEST(Devices, ADeviceThatIsNotThereEndsTheWorkerWithOneLine) {
  auto cluster = TestCluster::Launch({.model = kModel, .worker_flags = {"--device", "cuda:1023"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_TRUE((*cluster)->worker(0).WaitFor(kPatience));
  EXPECT_EQ((*cluster)->worker(0).ending(), "exit code 1");
  EXPECT_THAT((*cluster)->Logs(), HasSubstr("device cuda:1023: "));
}

}  // namespace
}  // namespace bellwether
