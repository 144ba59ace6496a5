// Promise 1 on GPUs: the same bits whatever the layout, the batch and the cut of a prompt, and whichever
// kernels serve them. On the emulator, so that every machine can run it; on the first real GPU with
// BELLWETHER_TEST_CUDA=1.

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "tests/layouts/engine_driver.h"
#include "tests/layouts/test_gpu.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

struct Subject {
  std::string name;
  std::string checkpoint;
  DType kv_type = DType::kF32;
  Quantize quantize = Quantize::kNone;
};
void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

// Head counts and widths that nothing divides evenly (head sizes 24, 16 and 20), and one shape that tensor
// cores like: all widths are multiples of 64.
constexpr char kLlama[] = "random:llama?hidden=120,layers=3,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173";
constexpr char kGrouped[] =
    "random:llama?hidden=128,layers=3,heads=8,kv_heads=2,head_dim=32,ffn=512,vocab=160";
constexpr char kBloom[] = "random:bloom?hidden=100,layers=3,heads=5,ffn=400,vocab=151";
// As kGrouped, with normalised heads and biases.
constexpr char kQwen3[] =
    "random:qwen3?hidden=128,layers=3,heads=8,kv_heads=2,head_dim=32,ffn=512,vocab=160,bias=1";

std::vector<Subject> AllSubjects() {
  std::vector<Subject> subjects;
  for (const auto& [name, shape] :
       {std::pair{"llama_mqa", kLlama}, {"llama_gqa", kGrouped}, {"bloom", kBloom}, {"qwen3", kQwen3}}) {
    const std::string prefix = name;
    subjects.push_back({prefix + "_fp32", std::string(shape) + ":fp32", DType::kF32});
    subjects.push_back({prefix + "_fp16", std::string(shape) + ":fp16", DType::kBF16});
    subjects.push_back({prefix + "_bf16", std::string(shape) + ":bf16", DType::kBF16});
    subjects.push_back({prefix + "_int8", std::string(shape) + ":bf16", DType::kBF16, Quantize::kInt8});
    subjects.push_back({prefix + "_int4", std::string(shape) + ":fp32", DType::kF16, Quantize::kInt4});
  }
  return subjects;
}

// Each format and each model once, and both kinds of attention.
std::vector<Subject> Subjects() {
  std::vector<Subject> subjects = AllSubjects();
  if (TestEveryLayout()) return subjects;
  constexpr std::string_view kNames[] = {"llama_mqa_bf16", "qwen3_int4", "bloom_int8", "llama_mqa_fp32"};
  std::erase_if(subjects, [&](const Subject& subject) {
    return std::find(std::begin(kNames), std::end(kNames), subject.name) == std::end(kNames);
  });
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

// Long and short prompts, so that rows take every kernel: one row, up to 8, up to 16, up to 64 and more. The
// first of them alone take fewer.
const std::vector<int> kLengths = {35, 3, 9, 70, 1, 2};
const std::vector<int> kFewLengths = {35, 3};

std::vector<EngineRequest> Requests(int vocab, const std::vector<int>& lengths, int32_t logprobs,
                                    int scored_length) {
  std::vector<EngineRequest> requests;
  for (const int length : lengths) {
    const auto i = static_cast<uint64_t>(requests.size());
    EngineRequest request{
        .id = RequestId{i + 1}, .prompt = Prompt(length, static_cast<int>(i), vocab), .max_tokens = 3};
    request.sampling.temperature = i % 2 == 0 ? 0.0 : 0.9;
    request.sampling.top_k = i % 4 == 1 ? 20 : 0;
    request.sampling.logprobs = logprobs;
    request.seed = i;
    request.score = length == scored_length;
    requests.push_back(std::move(request));
  }
  return requests;
}

struct Variant {
  int stages = 1;
  int ranks = 1;
  int step_tokens = 512;
  bool one_by_one = false;
  int32_t logprobs = 3;         // -1: none, so that the largest logits decide where they can
  int32_t streamed_layers = 0;  // of each stage
  WeightHome home = WeightHome::kHost;
  StreamedEnds ends;
  int scored_length = 9;
  gpu::EmulatedCard card = gpu::kEmulatedHopper;
  std::vector<int> lengths = kLengths;
  bool prefix_cache = true;
  bool uneven = false;  // of the ranks the first has no row of the embedding, the last none of the head
};

// Where layers lie that are streamed from a drive.
const ShardCache* DriveOf(const Variant& variant) {
  static const testing_files::TemporaryDirectory directory;
  static const auto cache = ShardCache::Open({.directory = directory.path()});
  return variant.home == WeightHome::kDrive && cache.ok() ? cache->get() : nullptr;
}

void MakeUneven(int64_t vocab, Layout& layout) {
  std::vector<RankLayout>&first = layout.stages.front().ranks, &last = layout.stages.back().ranks;
  first[1].embedding_rows.begin = 0;
  first[0].embedding_rows = {0, 0};
  last[last.size() - 2].head_rows.end = vocab;
  last.back().head_rows = {vocab, vocab};
}

absl::StatusOr<std::vector<Answer>> AnswersTo(std::vector<EngineRequest> requests,
                                              const Checkpoint& checkpoint, const Subject& subject,
                                              const Variant& variant, EngineSnapshot* end = nullptr) {
  BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(checkpoint.config(), variant.stages, variant.ranks));
  if (variant.uneven) MakeUneven(checkpoint.config().vocab, layout);
  BW_ASSIGN_OR_RETURN(
      auto cluster,
      LocalCluster::Start(checkpoint, {.layout = std::move(layout),
                                       .numeric = {.kernel_level = TestGpuLevel(variant.card),
                                                   .quantize = subject.quantize,
                                                   .kv_type = subject.kv_type},
                                       .kv_blocks = 32,
                                       .device_of = [&](size_t) { return TestGpu(variant.card); },
                                       .streamed_layers = variant.streamed_layers,
                                       .stream_home = variant.home,
                                       .streamed_ends = variant.ends,
                                       .cache = DriveOf(variant)}));
  DriverOptions driver{.kv_blocks = 32, .stages = variant.stages, .one_by_one = variant.one_by_one};
  driver.engine.step_tokens_max = variant.step_tokens;
  driver.engine.context_tokens_max = 256;
  driver.engine.prefix_cache = variant.prefix_cache;
  return RunRequests(*cluster, driver, std::move(requests), end);
}

absl::StatusOr<std::vector<Answer>> AnswersOf(const Checkpoint& checkpoint, const Subject& subject,
                                              const Variant& variant) {
  return AnswersTo(
      Requests(checkpoint.config().vocab, variant.lengths, variant.logprobs, variant.scored_length),
      checkpoint, subject, variant);
}

void ExpectAnswers(const absl::StatusOr<std::vector<Answer>>& answers, const std::vector<Answer>& expected,
                   const Variant& variant) {
  const std::string what = absl::StrCat(
      variant.stages, " stages x ", variant.ranks, " ranks, steps of ", variant.step_tokens,
      variant.one_by_one ? ", one by one" : "", variant.logprobs < 0 ? ", no log-probabilities" : "",
      "; streamed: ", variant.streamed_layers, " layers", variant.ends.embedding ? ", the embedding" : "",
      variant.ends.head ? ", the head" : "", variant.uneven ? ", uneven rows" : "",
      variant.home == WeightHome::kDrive ? " from a drive" : "", "; ", variant.card.numeric_class,
      variant.card.hopper ? "" : " without wgmma", ", ", variant.card.multiprocessors, " multiprocessors");
  ASSERT_TRUE(answers.ok()) << what << ": " << answers.status();
  ASSERT_EQ(answers->size(), variant.lengths.size());
  for (size_t i = 0; i < answers->size(); ++i) {
    EXPECT_EQ((*answers)[i].tokens, expected[i].tokens) << what << ", answer " << i;
    if (variant.logprobs < 0) continue;
    EXPECT_EQ((*answers)[i].logprobs, expected[i].logprobs) << what << ", answer " << i;
  }
}

// With bits of cuda_sm90, and other kernels: where two tiles' sums do not fit into shared memory, and with as
// many multiprocessors as an H200.
constexpr gpu::EmulatedCard kSmallBlackwell{.hopper = false, .shared_bytes = 9 << 10};
constexpr gpu::EmulatedCard kLargeHopper{.multiprocessors = 132};

class GpuEquality : public ::testing::TestWithParam<Subject> {};

TEST_P(GpuEquality, Layouts) {
  const auto checkpoint = Checkpoint::Open(GetParam().checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto expected = AnswersOf(**checkpoint, GetParam(), {});
  ASSERT_TRUE(expected.ok()) << expected.status();
  // Three layers in two slots change places from step to step; a copy of weights may land at any moment
  // before they are used.
  std::vector<Variant> variants = {
      {.one_by_one = true},
      {.ranks = 2, .logprobs = -1},
      {.stages = 2, .ranks = 3, .step_tokens = 13},
      {.streamed_layers = 3},
      {.stages = 2, .ranks = 2, .streamed_layers = 1, .home = WeightHome::kDrive}};
  if (GetParam().name == "qwen3_int4") {
    variants.push_back({.card = kLargeHopper, .lengths = kFewLengths});
    variants.push_back({.card = kSmallBlackwell, .lengths = kFewLengths});
  }
  if (GetParam().name == "bloom_int8")
    variants.push_back({.card = gpu::kEmulatedBlackwell, .lengths = kFewLengths});
  if (TestEveryLayout()) {
    for (const gpu::EmulatedCard& card : {kLargeHopper, kSmallBlackwell, gpu::kEmulatedBlackwell}) {
      variants.push_back({.card = card});
      variants.push_back({.stages = 2, .ranks = 3, .step_tokens = 13, .card = card});
    }
    for (int ranks = 1; ranks <= 5; ++ranks) {
      for (int stages = 1; stages <= 3; ++stages)
        variants.push_back({.stages = stages, .ranks = ranks, .step_tokens = 40});
    }
    for (const WeightHome home : {WeightHome::kHost, WeightHome::kDrive}) {
      for (int32_t streamed = 1; streamed <= 3; ++streamed) {
        variants.push_back({.step_tokens = 40, .streamed_layers = streamed, .home = home});
        variants.push_back({.ranks = 3, .step_tokens = 13, .streamed_layers = streamed, .home = home});
      }
    }
  }
  for (const Variant& variant : variants) {
    ExpectAnswers(AnswersOf(**checkpoint, GetParam(), variant), *expected, variant);
  }
}

// The other class has one answer too. (That its products have other bits shows products_test; so few layers
// seldom tell of it.)
class GpuEqualityOfAmpere : public ::testing::TestWithParam<Subject> {};

TEST_P(GpuEqualityOfAmpere, Layouts) {
  if (TestGpuIsReal()) GTEST_SKIP() << "a card has one class";
  const auto checkpoint = Checkpoint::Open(GetParam().checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<Variant> variants = {{}, {.stages = 2, .ranks = 3, .step_tokens = 13}};
  if (TestEveryLayout()) {
    for (int ranks = 1; ranks <= 3; ++ranks) variants.push_back({.ranks = ranks, .step_tokens = 40});
    variants.push_back({.one_by_one = true});
    variants.push_back({.ranks = 2, .logprobs = -1});
    variants.push_back({.stages = 2, .ranks = 2, .streamed_layers = 1});
    variants.push_back({.ends = {.embedding = true, .head = true}});
  }
  for (Variant& variant : variants) {
    variant.card = gpu::kEmulatedAmpere;
    if (!TestEveryLayout()) variant.lengths = kFewLengths;
  }
  const auto expected = AnswersOf(**checkpoint, GetParam(), variants.front());
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const Variant& variant : variants) {
    if (&variant != &variants.front())
      ExpectAnswers(AnswersOf(**checkpoint, GetParam(), variant), *expected, variant);
  }
}

// Both kinds of attention that are not scalar.
std::vector<Subject> SubjectsOfAmpere() {
  std::vector<Subject> subjects = AllSubjects();
  if (TestEveryLayout()) return subjects;
  std::erase_if(subjects, [](const Subject& subject) {
    return subject.name != "llama_mqa_bf16" && subject.name != "bloom_int8";
  });
  return subjects;
}

INSTANTIATE_TEST_SUITE_P(All, GpuEqualityOfAmpere, ::testing::ValuesIn(SubjectsOfAmpere()),
                         [](const auto& info) { return info.param.name; });

// Seventeen decode in a step, one more than what streams weights for a few rows takes at once: tiles serve
// them. Whoever is alone is served by the other kernel, and by another piece of the grid.
class GpuBatches : public ::testing::TestWithParam<Subject> {};

TEST_P(GpuBatches, SeventeenTogetherAnswerAsEachAlone) {
  const auto checkpoint = Checkpoint::Open(GetParam().checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<EngineRequest> requests;
  for (int i = 0; i < 17; ++i) {
    EngineRequest request{.id = RequestId{static_cast<uint64_t>(i) + 1},
                          .prompt = Prompt(1 + i % 3, i, (*checkpoint)->config().vocab),
                          .max_tokens = 2};
    request.sampling.temperature = i % 2 == 0 ? 0.0 : 0.9;
    request.sampling.logprobs = 2;
    request.seed = static_cast<uint64_t>(i);
    requests.push_back(std::move(request));
  }
  const auto expected = AnswersTo(requests, **checkpoint, GetParam(), {.one_by_one = true});
  ASSERT_TRUE(expected.ok()) << expected.status();
  ExpectAnswers(AnswersTo(requests, **checkpoint, GetParam(), {}), *expected,
                {.lengths = std::vector<int>(requests.size())});
}

// A second turn reads what the first has left in the card's KV cache.
TEST_P(GpuBatches, ConversationsGoOnWithTheSameBits) {
  const auto checkpoint = Checkpoint::Open(GetParam().checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<EngineRequest> asked =
      Requests((*checkpoint)->config().vocab, {62, 35}, 2, /*scored_length=*/0);
  const auto first = AnswersTo(asked, **checkpoint, GetParam(), {});
  ASSERT_TRUE(first.ok()) << first.status();
  asked = WithSecondTurns(std::move(asked), *first);
  const auto expected =
      AnswersTo(asked, **checkpoint, GetParam(), {.one_by_one = true, .prefix_cache = false});
  ASSERT_TRUE(expected.ok()) << expected.status();
  EngineSnapshot end;
  const Variant variant{.one_by_one = true, .lengths = std::vector<int>(asked.size())};
  ExpectAnswers(AnswersTo(asked, **checkpoint, GetParam(), variant, &end), *expected, variant);
  EXPECT_EQ(end.prefix_tokens_cached, 64u + 32u);
}

std::vector<Subject> BatchSubjects() {
  std::vector<Subject> subjects = {{"llama_bf16", absl::StrCat(kGrouped, ":bf16"), DType::kBF16}};
  if (TestEveryLayout())
    subjects.push_back({"bloom_int4", absl::StrCat(kBloom, ":bf16"), DType::kF32, Quantize::kInt4});
  return subjects;
}
INSTANTIATE_TEST_SUITE_P(All, GpuBatches, ::testing::ValuesIn(BatchSubjects()),
                         [](const auto& info) { return info.param.name; });

// An embedding whose rows the host looks up, and a head of two pieces in the slots of the layers: also where
// a step wants no logits, when pieces have come to slots for nothing, and where it wants more than there are
// at a time, when layers have.
class GpuStreamedEnds : public ::testing::TestWithParam<Subject> {};

TEST_P(GpuStreamedEnds, AnswersAreThoseFromMemory) {
  const auto checkpoint = Checkpoint::Open(GetParam().checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  constexpr int kScored = 70;
  const auto expected = AnswersOf(**checkpoint, GetParam(), {.scored_length = kScored});
  ASSERT_TRUE(expected.ok()) << expected.status();
  const StreamedEnds both = {.embedding = true, .head = true};
  std::vector<Variant> variants = {
      {.step_tokens = 13, .ends = both},
      {.streamed_layers = 2, .home = WeightHome::kDrive, .ends = both},
      {.ranks = 2, .step_tokens = 13, .streamed_layers = 1, .home = WeightHome::kDrive, .ends = both},
      {.ranks = 2, .streamed_layers = 1, .ends = both, .uneven = true},
      {.stages = 2, .logprobs = -1, .streamed_layers = 1, .ends = both}};
  if (TestEveryLayout()) {
    for (const WeightHome home : {WeightHome::kHost, WeightHome::kDrive}) {
      for (int32_t streamed = 0; streamed <= 2; ++streamed) {
        for (const bool uneven : {false, true}) {
          variants.push_back(
              {.ranks = 3, .streamed_layers = streamed, .home = home, .ends = both, .uneven = uneven});
        }
        variants.push_back({.step_tokens = 40, .streamed_layers = streamed, .home = home, .ends = both});
        variants.push_back({.stages = 2, .streamed_layers = streamed, .home = home, .ends = {.head = true}});
        variants.push_back(
            {.stages = 2, .streamed_layers = streamed, .home = home, .ends = {.embedding = true}});
      }
    }
  }
  for (Variant& variant : variants) {
    variant.scored_length = kScored;
    ExpectAnswers(AnswersOf(**checkpoint, GetParam(), variant), *expected, variant);
  }
}

constexpr char kLlamaOfPieces[] = "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,ffn=96,vocab=4200";
constexpr char kBloomOfPieces[] = "random:bloom?hidden=60,layers=2,heads=5,ffn=240,vocab=4140";

INSTANTIATE_TEST_SUITE_P(
    All, GpuStreamedEnds,
    ::testing::Values(Subject{"llama_bf16", absl::StrCat(kLlamaOfPieces, ":bf16"), DType::kBF16},
                      Subject{"llama_tied_fp32", absl::StrCat(kLlamaOfPieces, ",tied=1:fp32"), DType::kF32},
                      Subject{"llama_stored_int4", absl::StrCat(kLlamaOfPieces, ":int4"), DType::kBF16},
                      Subject{"bloom_int8", absl::StrCat(kBloomOfPieces, ":bf16"), DType::kF16,
                              Quantize::kInt8}),
    [](const auto& info) { return info.param.name; });

// Kernels take values in pairs: a model that has none is refused, not computed wrongly.
TEST(GpuSizes, OddOnesAreRefused) {
  const auto checkpoint = Checkpoint::Open("random:bloom?hidden=75,layers=1,heads=5,ffn=300,vocab=151:fp32");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const absl::Status status = AnswersOf(**checkpoint, {.name = "odd", .kv_type = DType::kBF16}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_NE(status.message().find("head_dim 15"), std::string::npos) << status;
}

INSTANTIATE_TEST_SUITE_P(All, GpuEquality, ::testing::ValuesIn(Subjects()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bellwether
