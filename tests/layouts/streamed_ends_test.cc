// Promise 1 where embedding and head do not stay in memory: vocabularies of several pieces give the bits that
// they give from memory, whoever holds which rows, whatever else is streamed, and whether a step wants
// logits.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "model/checkpoint/testing_files.h"
#include "tests/layouts/engine_driver.h"
#include "worker/device/cpu_device.h"
#include "worker/device/testing/far_device.h"

namespace bellwether {
namespace {

struct Subject {
  std::string name;
  std::string checkpoint;
  Quantize quantize = Quantize::kNone;
};
void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

constexpr char kLlama[] = "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,ffn=96,vocab=9001";
constexpr char kBloom[] = "random:bloom?hidden=60,layers=2,heads=5,ffn=240,vocab=8300";

std::vector<Subject> Subjects() {
  const std::string llama = kLlama, tied = llama + ",tied=1", bloom = kBloom;
  return {{"llama_fp32", llama + ":fp32"},
          {"llama_tied_bf16", tied + ":bf16"},
          {"llama_int8", llama + ":bf16", Quantize::kInt8},
          {"bloom_fp16", bloom + ":fp16"},
          {"bloom_stored_int4", bloom + ":int4"},
          {"llama_tied_int4", tied + ":fp32", Quantize::kInt4}};
}

// Prompts of many chunks, and a text to score that is longer than logits there are at a time.
std::vector<EngineRequest> Requests(int vocab) {
  std::vector<EngineRequest> requests;
  for (int i = 0; i < 5; ++i) {
    EngineRequest request{
        .id = RequestId{static_cast<uint64_t>(i + 1)}, .max_tokens = 4 + i, .ignore_eos = true};
    for (int k = 0; k < (i == 3 ? 150 : 3 + 17 * i); ++k)
      request.prompt.push_back((k * 1237 + i * 331) % vocab);
    request.sampling.temperature = i % 2 == 0 ? 0.0 : 0.9;
    request.sampling.logprobs = 2;
    request.seed = static_cast<uint64_t>(i);
    request.score = i == 3;
    requests.push_back(std::move(request));
  }
  return requests;
}

class StreamedEndsEquality : public ::testing::TestWithParam<Subject> {
 protected:
  void SetUp() override {
    checkpoint_ = *Checkpoint::Open(GetParam().checkpoint);
    cache_ = *ShardCache::Open({.directory = directory_.path()});
  }
  struct Variant {
    int stages = 1, ranks = 1;
    int32_t layers = 0;  // streamed
    StreamedEnds ends;
    int step_tokens = 512;
    bool far = false;
  };
  std::vector<Answer> AnswersOf(const Variant& variant) {
    const auto device = [&](size_t) -> std::shared_ptr<Device> {
      if (variant.far) return std::make_shared<FarDevice>(1);
      return std::make_shared<CpuDevice>(1);
    };
    const auto cluster = LocalCluster::Start(
        *checkpoint_, {.layout = *EvenLayout(checkpoint_->config(), variant.stages, variant.ranks),
                       .numeric = {.kernel_level = std::string(Name(kernels::AvailableKernelLevels().back())),
                                   .quantize = GetParam().quantize},
                       .device_of = device,
                       .streamed_layers = variant.layers,
                       .streamed_ends = variant.ends,
                       .cache = cache_.get()});
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    if (!cluster.ok()) return {};
    DriverOptions driver{.stages = variant.stages};
    driver.engine.step_tokens_max = variant.step_tokens;
    const auto answers =
        RunRequests(**cluster, driver, Requests(static_cast<int>(checkpoint_->config().vocab)));
    EXPECT_TRUE(answers.ok()) << answers.status();
    return answers.value_or(std::vector<Answer>());
  }

  testing_files::TemporaryDirectory directory_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ShardCache> cache_;
};

TEST_P(StreamedEndsEquality, AnswersAreThoseFromMemory) {
  const std::vector<Answer> expected = AnswersOf({});
  ASSERT_EQ(expected.size(), 5u);
  const StreamedEnds both = {.embedding = true, .head = true};
  for (const int ranks : {1, 3}) {
    for (const int32_t layers : {0, 1, 2}) {
      for (const int step_tokens : {11, 512}) {
        EXPECT_EQ(AnswersOf({.ranks = ranks, .layers = layers, .ends = both, .step_tokens = step_tokens}),
                  expected)
            << ranks << " ranks, " << layers << " layers streamed, " << step_tokens << " tokens a step";
      }
    }
  }
  EXPECT_EQ(AnswersOf({.stages = 2, .ranks = 2, .layers = 1, .ends = both}), expected);
  EXPECT_EQ(AnswersOf({.ranks = 2, .layers = 1, .ends = both, .step_tokens = 11, .far = true}), expected);
  for (const StreamedEnds one : {StreamedEnds{.embedding = true}, StreamedEnds{.head = true}}) {
    EXPECT_EQ(AnswersOf({.stages = 2, .ends = one}), expected) << "one of them";
    if (checkpoint_->config().tied_head) continue;  // one matrix on one worker
    EXPECT_EQ(AnswersOf({.layers = 1, .ends = one}), expected) << "one of them";
  }
}

INSTANTIATE_TEST_SUITE_P(All, StreamedEndsEquality, ::testing::ValuesIn(Subjects()),
                         [](const auto& info) { return info.param.name; });

// Only the step that ends a prompt asks for logits: for its other parts two pieces of the head are read
// ahead, of twenty.
TEST(StreamedEndsTest, PartsOfAPromptDoNotReadTheHead) {
  const testing_files::TemporaryDirectory directory;
  const auto cache = *ShardCache::Open({.directory = directory.path()});
  const auto checkpoint =
      *Checkpoint::Open("random:llama?hidden=32,layers=3,heads=2,ffn=32,vocab=80001:fp32");
  constexpr int64_t kHead = int64_t{80016} * 32 * 4;
  constexpr int kStepTokens = 64, kPrompt = 10 * kStepTokens;
  for (const int32_t layers : {0, 1, 3}) {
    const auto cluster = LocalCluster::Start(
        *checkpoint, {.layout = *EvenLayout(checkpoint->config(), 1, 1),
                      .numeric = {.kernel_level = std::string(Name(kernels::AvailableKernelLevels().back()))},
                      .streamed_layers = layers,
                      .streamed_ends = {.head = true},
                      .cache = cache.get()});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    EngineRequest request{.id = RequestId{1}, .max_tokens = 1, .ignore_eos = true};
    for (int i = 0; i < kPrompt; ++i) request.prompt.push_back(i);
    DriverOptions driver;
    driver.engine.step_tokens_max = kStepTokens;
    driver.engine.context_tokens_max = 1024;
    const auto answers = RunRequests(**cluster, driver, {std::move(request)});
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_GE((*cluster)->streamed_bytes(), kHead);
    EXPECT_LT((*cluster)->streamed_bytes(), 4 * kHead) << "in ten steps or more";
  }
}

}  // namespace
}  // namespace bellwether
