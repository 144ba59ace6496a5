// Promise 1 with real processes: every layout answers with the tokens and log-probabilities of a single
// worker, bit for bit, many requests at once. tests/layouts does the same in one process over every
// combination (FullMatrix); this dozen sees to it that sessions, links and the planner keep the promise too.

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/test_cluster.h"

namespace bellwether {
namespace {

// Head counts and widths that nothing divides evenly.
constexpr char kLlama[] = "random:llama?hidden=120,layers=4,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173";
constexpr char kBloom[] = "random:bloom?hidden=100,layers=3,heads=5,ffn=400,vocab=151";

struct LayoutCase {
  int ranks, stages;
  const char* shape;
  const char* weights;  // "fp32", "bf16", or what --quantize makes of fp32: "int8", "int4"
  int threads = 1;
  bool separate_hosts = false;
  int step_tokens = 512;  // fewer cut prompts into chunks
};

// Every pair of ranks and stages, of stages and weights, and of either with a family; two and three ranks
// with all weights. One worker alone is what the others are compared with.
constexpr LayoutCase kCases[] = {
    {1, 2, kLlama, "bf16"},
    {1, 3, kBloom, "int8", 2},
    {2, 1, kLlama, "fp32", 2},
    {2, 2, kBloom, "int8"},
    {2, 3, kLlama, "int4"},
    {3, 1, kBloom, "int8"},
    {3, 2, kLlama, "int4"},
    {3, 3, kLlama, "fp32"},
    {4, 1, kBloom, "int4"},
    {4, 2, kLlama, "fp32"},
    {4, 3, kBloom, "bf16"},
    {5, 1, kLlama, "int8"},
    {5, 2, kBloom, "bf16"},
    {5, 3, kLlama, "fp32"},
    {2, 2, kLlama, "bf16", 1, true},
    {3, 1, kLlama, "bf16", 1, true},
    {2, 2, kBloom, "fp32", 1, false, 7},
};

std::string Name(const LayoutCase& layout) {
  return absl::StrCat(layout.shape == kBloom ? "bloom_" : "llama_", layout.weights, "_tp", layout.ranks,
                      "_pp", layout.stages, layout.threads > 1 ? "_threads" : "",
                      layout.separate_hosts ? "_grpc_links" : "", layout.step_tokens < 512 ? "_chunks" : "");
}
void PrintTo(const LayoutCase& layout, std::ostream* out) { *out << Name(layout); }

TestClusterOptions Cluster(const LayoutCase& layout) {
  const std::string weights = layout.weights;
  const bool quantized = weights == "int8" || weights == "int4";
  return {.model = absl::StrCat(layout.shape, ":", quantized ? "fp32" : weights),
          .tensor_parallel = layout.ranks,
          .pipeline_parallel = layout.stages,
          .threads = layout.threads,
          .quantize = quantized ? weights : "none",
          .coordinator_flags = {"--step-tokens", std::to_string(layout.step_tokens)},
          .separate_hosts = layout.separate_hosts};
}

// Twenty-four requests of many kinds at once, and scores.
struct Answers {
  std::vector<CollectedAnswer> generated;
  std::vector<std::vector<float>> scores;
};

Answers Ask(TestCluster& cluster) {
  constexpr int kRequests = 24, kScores = 4;
  const int vocab = cluster.client().GetModel()->vocab_size;
  Answers answers;
  answers.generated.resize(kRequests);
  answers.scores.resize(kScores);
  std::vector<std::thread> threads;
  for (int i = 0; i < kRequests; ++i) {
    threads.emplace_back([&, i] {
      const GenerationOptions options{.max_tokens = 6 + i % 11,
                                      .temperature = i % 3 == 0 ? 0.0 : 0.9,
                                      .top_k = i % 3 == 1 ? 20 : 0,
                                      .top_p = i % 3 == 2 ? 0.9 : 1.0,
                                      .repetition_penalty = i % 2 == 0 ? 1.0 : 1.2,
                                      .presence_penalty = i % 5 == 0 ? 0.5 : 0.0,
                                      .seed = static_cast<uint64_t>(i),
                                      .ignore_eos = true,
                                      .logprobs = 3,
                                      .n = i % 8 == 4 ? 3 : 1};
      answers.generated[i] =
          Generate(cluster.client(), Ids(SomeTokens(3 + (i * 29) % 83, i, vocab)), options);
    });
  }
  for (int i = 0; i < kScores; ++i) {
    threads.emplace_back([&, i] {
      const auto score = cluster.client().Score(Ids(SomeTokens(20 + 50 * i, 100 + i, vocab)), {});
      EXPECT_TRUE(score.ok()) << score.status();
      if (score.ok()) answers.scores[i] = score->logprobs;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return answers;
}

// The answers of one worker, once for all layouts of the same numbers.
const Answers& OneWorkers(LayoutCase layout) {
  static std::map<std::string, Answers>& known = *new std::map<std::string, Answers>();
  layout.ranks = layout.stages = layout.threads = 1;
  layout.separate_hosts = false;
  layout.step_tokens = 512;
  Answers& answers = known[Name(layout)];
  if (!answers.generated.empty()) return answers;
  auto cluster = TestCluster::Start(Cluster(layout));
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  if (cluster.ok()) answers = Ask(**cluster);
  return answers;
}

void ExpectEqual(const Answers& answers, const Answers& expected) {
  ASSERT_EQ(answers.generated.size(), expected.generated.size());
  for (size_t i = 0; i < answers.generated.size(); ++i) {
    const CollectedAnswer& answer = answers.generated[i];
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.broken_rule, "");
    EXPECT_FALSE(answer.choices.empty());
    EXPECT_EQ(answer.choices, expected.generated[i].choices) << "request " << i;
  }
  EXPECT_EQ(answers.scores, expected.scores);
}

class Layouts : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(Layouts, AnswerAsOneWorker) {
  auto cluster = TestCluster::Start(Cluster(GetParam()));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const Answers answers = Ask(**cluster);
  cluster->reset();
  ExpectEqual(answers, OneWorkers(GetParam()));
}

// Machines that share no memory and a coordinator that is only told how many: a stage for each.
TEST(PlannedLayout, AStageForEachHostAnswersAsOneWorker) {
  const LayoutCase one{1, 1, kLlama, "bf16"};
  TestClusterOptions options = Cluster(one);
  options.tensor_parallel = options.pipeline_parallel = 0;
  options.workers = 3;
  options.separate_hosts = true;
  auto cluster = TestCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_THAT((*cluster)->client().GetModel()->layout, ::testing::StartsWith("3 stages"));
  const Answers answers = Ask(**cluster);
  cluster->reset();
  ExpectEqual(answers, OneWorkers(one));
}

INSTANTIATE_TEST_SUITE_P(Dozen, Layouts, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return Name(info.param); });

}  // namespace
}  // namespace bellwether
