// Workers whose device is a GPU, as real processes. The emulator stands in for the card (--device emulated):
// a few tokens of tiny models take seconds on it.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
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

TEST(Devices, ADeviceThatIsNotThereEndsTheWorkerWithOneLine) {
  auto cluster = TestCluster::Launch({.model = kModel, .worker_flags = {"--device", "cuda:1023"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_TRUE((*cluster)->worker(0).WaitFor(kPatience));
  EXPECT_EQ((*cluster)->worker(0).ending(), "exit code 1");
  EXPECT_THAT((*cluster)->Logs(), HasSubstr("device cuda:1023: "));
}

}  // namespace
}  // namespace bellwether
