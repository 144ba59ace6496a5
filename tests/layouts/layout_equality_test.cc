// Promise 1: the same request gives the same bits whatever the tensor x pipeline layout, whoever shares the
// batch, however the prompt is cut, and with preemption. Every test here compares for equality, never within
// a tolerance.

#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "model/checkpoint/testing_files.h"
#include "model/row_limits.h"
#include "tests/layouts/engine_driver.h"
#include "worker/device/testing/far_device.h"

namespace bellwether {
namespace {

// A model by its shape, and how its weights are kept.
struct Subject {
  std::string name;
  std::string checkpoint;
  DType kv_type = DType::kF32;
  Quantize quantize = Quantize::kNone;
};
void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

// Head counts and widths that nothing divides evenly; group and slice bounds that cut each other (head_dim 24
// and 20).
constexpr char kLlama[] = "random:llama?hidden=120,layers=4,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173";
constexpr char kLlamaGrouped[] = "random:llama?hidden=96,layers=3,heads=6,kv_heads=3,ffn=172,vocab=160";
constexpr char kBloom[] = "random:bloom?hidden=100,layers=3,heads=5,ffn=400,vocab=151";
// Normalised heads, and biases.
constexpr char kQwen3[] =
    "random:qwen3?hidden=60,layers=3,heads=6,kv_heads=2,head_dim=20,ffn=172,vocab=160,bias=1";

std::vector<Subject> Subjects() {
  std::vector<Subject> subjects;
  for (const auto& [name, shape] :
       {std::pair{"llama_mqa", kLlama}, {"llama_gqa", kLlamaGrouped}, {"bloom", kBloom}, {"qwen3", kQwen3}}) {
    const std::string prefix = name;
    subjects.push_back({prefix + "_fp32", std::string(shape) + ":fp32", DType::kF32});
    subjects.push_back({prefix + "_bf16", std::string(shape) + ":bf16", DType::kBF16});
    subjects.push_back({prefix + "_int8", std::string(shape) + ":bf16", DType::kBF16, Quantize::kInt8});
    subjects.push_back({prefix + "_int4", std::string(shape) + ":fp32", DType::kF16, Quantize::kInt4});
  }
  return subjects;
}

std::vector<TokenId> Prompt(int length, int seed, int vocab) {
  std::vector<TokenId> tokens;
  uint32_t state = 12345u + static_cast<uint32_t>(seed) * 7919u;
  for (int i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    tokens.push_back(static_cast<TokenId>((state >> 8) % static_cast<uint32_t>(vocab)));
  }
  return tokens;
}

// Seventeen requests of many kinds: greedy, sampled with penalties and filters, two choices, scores.
std::vector<EngineRequest> Requests(int vocab, int count, int longer_by) {
  std::vector<EngineRequest> requests;
  for (int i = 0; i < count; ++i) {
    EngineRequest request{.id = RequestId{static_cast<uint64_t>(i + 1)},
                          .prompt = Prompt(3 + (i * 29) % 83, i, vocab),
                          .max_tokens = 4 + i % 7 + longer_by};
    request.sampling.temperature = i % 3 == 0 ? 0.0 : 0.9;
    request.sampling.top_k = i % 3 == 1 ? 20 : 0;
    request.sampling.top_p = i % 3 == 2 ? 0.9 : 1.0;
    request.sampling.repetition_penalty = i % 2 == 0 ? 1.0 : 1.2;
    request.sampling.logprobs = 2;
    request.seed = static_cast<uint64_t>(i);
    request.choices = i == 4 ? 2 : 1;
    request.score = i == 7;
    requests.push_back(std::move(request));
  }
  return requests;
}

struct Variant {
  int stages = 1;
  int ranks = 1;
  int threads = 1;
  int step_tokens = 512;
  int kv_blocks = 256;
  bool one_by_one = false;
  int requests = 17;
  int longer_by = 0;                // tokens, for each answer
  std::vector<StageLayout> uneven;  // instead of stages x ranks
  size_t far_every = 0;             // so many workers from one on a far device to the next; 0: none are
  int64_t far_operations = -1;      // after which a far device fails
  int32_t streamed_layers = 0;      // of each stage
  bool streamed_ends = false;
  const ShardCache* cache = nullptr;
  bool prefix_cache = true;
  std::vector<EngineRequest> asked;  // instead of those of Requests
};

absl::StatusOr<std::vector<Answer>> AnswersOf(const Checkpoint& checkpoint, const Subject& subject,
                                              const std::string& level, const Variant& variant,
                                              EngineSnapshot* end = nullptr) {
  Layout layout{.stages = variant.uneven};
  if (layout.stages.empty()) {
    BW_ASSIGN_OR_RETURN(layout, EvenLayout(checkpoint.config(), variant.stages, variant.ranks));
  }
  BW_RETURN_IF_ERROR(Validate(layout, checkpoint.config()));
  const auto stages = static_cast<int32_t>(layout.stages.size());
  const auto device_of = [&](size_t worker) -> std::shared_ptr<Device> {
    if (variant.far_every > 0 && worker % variant.far_every == 0) {
      return std::make_shared<FarDevice>(variant.threads, variant.far_operations);
    }
    return std::make_shared<CpuDevice>(variant.threads);
  };
  BW_ASSIGN_OR_RETURN(
      auto cluster,
      LocalCluster::Start(
          checkpoint,
          {.layout = std::move(layout),
           .numeric = {.kernel_level = level, .quantize = subject.quantize, .kv_type = subject.kv_type},
           .kv_blocks = variant.kv_blocks,
           .threads = variant.threads,
           .device_of = device_of,
           .streamed_layers = variant.streamed_layers,
           .streamed_ends = {.embedding = variant.streamed_ends, .head = variant.streamed_ends},
           .cache = variant.cache}));
  DriverOptions driver{.kv_blocks = variant.kv_blocks, .stages = stages, .one_by_one = variant.one_by_one};
  driver.engine.step_tokens_max = variant.step_tokens;
  driver.engine.context_tokens_max = 1024;
  driver.engine.prefix_cache = variant.prefix_cache;
  std::vector<EngineRequest> requests = variant.asked;
  if (requests.empty()) requests = Requests(checkpoint.config().vocab, variant.requests, variant.longer_by);
  return RunRequests(*cluster, driver, std::move(requests), end);
}

class LayoutEquality : public ::testing::TestWithParam<Subject> {
 protected:
  void SetUp() override {
    auto opened = Checkpoint::Open(GetParam().checkpoint);
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
    level_ = std::string(Name(kernels::AvailableKernelLevels().back()));
    auto expected = AnswersOf(*checkpoint_, GetParam(), level_, {});
    ASSERT_TRUE(expected.ok()) << expected.status();
    expected_ = *std::move(expected);
    ASSERT_EQ(expected_.size(), 18u) << "17 requests, one of them with two choices";
    int64_t prompts = 0;
    for (const EngineRequest& request : Requests(/*vocab=*/100, Variant().requests, 0)) {
      prompts += static_cast<int64_t>(request.prompt.size());
    }
    ASSERT_GT(prompts, kLayerRowsMax) << "the first step is to take more rows than a layer takes at once";
  }
  void ExpectEqual(const Variant& variant, const std::string& what) {
    const auto answers = AnswersOf(*checkpoint_, GetParam(), level_, variant);
    ASSERT_TRUE(answers.ok()) << what << ": " << answers.status();
    ASSERT_EQ(answers->size(), expected_.size()) << what;
    for (size_t i = 0; i < expected_.size(); ++i) {
      EXPECT_EQ((*answers)[i].tokens, expected_[i].tokens) << what << ", answer " << i;
      EXPECT_EQ((*answers)[i].logprobs, expected_[i].logprobs) << what << ", answer " << i;
    }
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::string level_;
  std::vector<Answer> expected_;
};

// Every number of ranks and stages in every way at once.
TEST_P(LayoutEquality, FullMatrix) {
  const Variant roomy = {.requests = 6, .longer_by = 80};
  EngineSnapshot roomy_end;
  const auto undisturbed = AnswersOf(*checkpoint_, GetParam(), level_, roomy, &roomy_end);
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  EXPECT_EQ(roomy_end.preemptions, 0u);
  const int ranks_max = std::min(5, SliceCount(checkpoint_->config()));
  for (int ranks = 1; ranks <= ranks_max; ++ranks) {
    for (int stages = 1; stages <= 3; ++stages) {
      const std::string layout = absl::StrCat(stages, " stages x ", ranks, " ranks");
      ExpectEqual({.stages = stages, .ranks = ranks}, layout);
      ExpectEqual({.stages = stages, .ranks = ranks, .one_by_one = true}, layout + ", one at a time");
      ExpectEqual({.stages = stages, .ranks = ranks, .step_tokens = 7}, layout + ", chunks of 7");
      EngineSnapshot end;
      const auto preempted = AnswersOf(*checkpoint_, GetParam(), level_,
                                       {.stages = stages,
                                        .ranks = ranks,
                                        .step_tokens = 40,
                                        .kv_blocks = 9,
                                        .requests = roomy.requests,
                                        .longer_by = roomy.longer_by},
                                       &end);
      ASSERT_TRUE(preempted.ok()) << layout << ": " << preempted.status();
      EXPECT_GT(end.preemptions, 0u) << layout << ": 9 KV blocks must be too few, or this shows nothing";
      EXPECT_EQ(*preempted, *undisturbed) << layout << ", preempted";
    }
  }
}

// Second turns read what first ones have left in the KV cache, prompts and answers; of few blocks part of it.
TEST_P(LayoutEquality, ConversationsThatGoOn) {
  std::vector<EngineRequest> asked = Requests(checkpoint_->config().vocab, 6, /*longer_by=*/40);
  for (EngineRequest& request : asked) request.choices = 1;
  const auto first = AnswersOf(*checkpoint_, GetParam(), level_, {.asked = asked});
  ASSERT_TRUE(first.ok()) << first.status();
  asked = WithSecondTurns(std::move(asked), *first);
  EngineSnapshot end;
  const auto expected = AnswersOf(*checkpoint_, GetParam(), level_,
                                  {.one_by_one = true, .prefix_cache = false, .asked = asked}, &end);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(end.prefix_tokens_cached, 0u);
  for (const Variant& variant :
       {Variant{.one_by_one = true, .asked = asked},
        {.stages = 2, .ranks = 3, .step_tokens = 11, .one_by_one = true, .asked = asked},
        {.ranks = 2, .kv_blocks = 14, .one_by_one = true, .asked = asked},
        {.stages = 3, .step_tokens = 40, .kv_blocks = 14, .asked = asked}}) {
    const auto answers = AnswersOf(*checkpoint_, GetParam(), level_, variant, &end);
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_EQ(*answers, *expected);
    EXPECT_GT(end.prefix_tokens_cached, 0u);
  }
}

TEST_P(LayoutEquality, UnevenParts) {
  const ModelConfig& config = checkpoint_->config();
  const int slices = SliceCount(config);
  const int64_t vocab = config.vocab;
  // The first stage on three very unequal ranks, the rest on two; one rank without embedding, one without
  // head rows.
  std::vector<StageLayout> uneven = {{.layers = {0, 1},
                                      .ranks = {{.slices = {0, 1}, .embedding_rows = {0, 7}},
                                                {.slices = {1, 2}, .embedding_rows = {7, 7}},
                                                {.slices = {2, slices}, .embedding_rows = {7, vocab}}}},
                                     {.layers = {1, config.layers},
                                      .ranks = {{.slices = {0, slices - 1}, .head_rows = {0, 0}},
                                                {.slices = {slices - 1, slices}, .head_rows = {0, vocab}}}}};
  ExpectEqual({.uneven = std::move(uneven)}, "uneven");
}

TEST_P(LayoutEquality, Threads) { ExpectEqual({.threads = 3}, "3 threads"); }

// Nothing in front of a device reads or writes its memory but by asking it, or expects an operation to be
// done when it returns; and workers on unlike devices share a stage and a pipeline.
TEST_P(LayoutEquality, FarDevices) {
  ExpectEqual({.far_every = 1}, "far");
  ExpectEqual({.threads = 2, .step_tokens = 7, .far_every = 1}, "far, chunks of 7");
  ExpectEqual({.stages = 2, .ranks = 3, .far_every = 1}, "far, 2 stages x 3 ranks");
  ExpectEqual({.stages = 3, .ranks = 2, .far_every = 2}, "one far rank in each of 3 stages");
  ExpectEqual({.stages = 3, .step_tokens = 11, .far_every = 2}, "far and near stages");
}

// Weights that come from a drive are the same weights: packed now or by somebody before, all layers or some,
// whichever ranks read them, and on a device that is behind the host.
TEST_P(LayoutEquality, StreamedLayers) {
  const testing_files::TemporaryDirectory directory;
  const auto cache = ShardCache::Open({.directory = directory.path()});
  ASSERT_TRUE(cache.ok()) << cache.status();
  const int ranks_max = std::min(3, SliceCount(checkpoint_->config()));
  for (int ranks = 1; ranks <= ranks_max; ++ranks) {
    for (int stages = 1; stages <= 2; ++stages) {
      for (const int32_t streamed : {1, 2, 99}) {
        ExpectEqual({.stages = stages,
                     .ranks = ranks,
                     .step_tokens = streamed == 1 ? 7 : 512,
                     .streamed_layers = streamed,
                     .streamed_ends = streamed != 2,
                     .cache = cache->get()},
                    absl::StrCat(stages, " stages x ", ranks, " ranks, ", streamed, " layers streamed"));
      }
    }
  }
  ExpectEqual(
      {.ranks = 2, .far_every = 1, .streamed_layers = 99, .streamed_ends = true, .cache = cache->get()},
      "streamed to far devices");
  EXPECT_GT(ListShardCache(directory.path())->size(), 0u);
}

TEST_P(LayoutEquality, AnOperationThatFailsIsAnErrorOfItsStep) {
  for (const int64_t operations : {0, 5, 12}) {
    const auto answers = AnswersOf(*checkpoint_, GetParam(), level_,
                                   {.stages = 2, .ranks = 2, .far_every = 3, .far_operations = operations});
    EXPECT_EQ(answers.status().code(), absl::StatusCode::kInternal) << answers.status();
    EXPECT_THAT(std::string(answers.status().message()),
                ::testing::AllOf(::testing::HasSubstr("step 1, "), ::testing::HasSubstr("the far device")));
  }
}

TEST_P(LayoutEquality, EveryKernelLevel) {
  for (kernels::KernelLevel kernel_level : kernels::AvailableKernelLevels()) {
    level_ = std::string(Name(kernel_level));
    const auto expected = AnswersOf(*checkpoint_, GetParam(), level_, {});
    ASSERT_TRUE(expected.ok()) << expected.status();
    expected_ = *expected;
    ExpectEqual({.stages = 2, .ranks = 3, .step_tokens = 11}, level_);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LayoutEquality, ::testing::ValuesIn(Subjects()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bellwether
