// Every golden checkpoint against Hugging Face transformers: logits of prompts fed in one piece, in pieces of
// 7 and token by token, and the greedy continuation.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "model/checkpoint/testing_files.h"
#include "nlohmann/json.hpp"
#include "tests/layouts/engine_driver.h"
#include "tests/layouts/local_cluster.h"
#include "tests/layouts/test_gpu.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

struct Golden {
  std::vector<TokenId> tokens;
  std::vector<int> positions;
  int vocab = 0;
  std::vector<float> logits;  // [positions][vocab]
  std::vector<TokenId> greedy;
  std::string checkpoint;      // what to open
  bool token_by_token = true;  // the last position's prompt too
};

Golden ReadGolden(const std::string& model) {
  const std::string directory = GoldenPath("models/" + model);
  Golden golden;
  std::ifstream file(directory + "/golden.json");
  const nlohmann::json json = nlohmann::json::parse(file);
  golden.tokens = json["token_ids"].get<std::vector<TokenId>>();
  golden.positions = json["logit_positions"].get<std::vector<int>>();
  golden.vocab = json["vocab_size"].get<int>();
  golden.greedy = json["greedy_token_ids"].get<std::vector<TokenId>>();
  golden.logits.resize(golden.positions.size() * golden.vocab);
  std::ifstream logits(directory + "/logits.bin", std::ios::binary);
  logits.read(reinterpret_cast<char*>(golden.logits.data()), golden.logits.size() * sizeof(float));
  EXPECT_TRUE(logits.good()) << directory;
  golden.checkpoint = GoldenCheckpoint(model);
  return golden;
}

std::vector<float> LogSoftmax(const float* logits, int count) {
  double sum = 0;
  const float maximum = *std::max_element(logits, logits + count);
  for (int i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - maximum);
  std::vector<float> result(count);
  for (int i = 0; i < count; ++i) result[i] = static_cast<float>(logits[i] - maximum - std::log(sum));
  return result;
}

// Feeds the first `length` tokens in chunks and returns the log-probabilities of what follows.
std::vector<float> Distribution(LocalCluster& cluster, const Golden& golden, int length, int chunk,
                                uint64_t& step_id) {
  static uint64_t next_sequence = 1;
  const SequenceId sequence{next_sequence++};
  Admission admission{.sequence = sequence, .prompt_length = length};
  admission.tokens.assign(golden.tokens.begin(), golden.tokens.begin() + length);
  admission.sampling.temperature = 0;
  admission.sampling.logprobs = golden.vocab;
  std::vector<float> logprobs(golden.vocab, -INFINITY);
  for (int position = 0; position < length; position += chunk) {
    const int count = std::min(chunk, length - position);
    StepEntry entry{.sequence = sequence, .position = position, .count = count};
    entry.sample = position + count == length;
    Step step{.epoch = Epoch{1}, .id = StepId{++step_id}};
    if (position == 0) step.admissions.push_back(admission);
    for (int block = (position + 31) / 32; block * 32 < position + count; ++block)
      entry.new_blocks.push_back(block);
    step.entries.push_back(entry);
    const auto result = cluster.Run(step);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return logprobs;  // no further step has an outcome
    if (!entry.sample) continue;
    for (const TokenLogprob& top : result->outputs.at(0).top) logprobs[top.token] = top.logprob;
  }
  Step retire{.epoch = Epoch{1}, .id = StepId{++step_id}, .retired = {sequence}};
  EXPECT_TRUE(cluster.Run(retire).ok());
  return logprobs;
}

class GoldenModel : public ::testing::TestWithParam<std::string> {};

double LargestError(const Golden& golden, const std::string& level, DType kv_type,
                    std::function<std::shared_ptr<Device>(size_t)> device_of = {}) {
  auto checkpoint = Checkpoint::Open(golden.checkpoint);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return INFINITY;
  EXPECT_EQ((*checkpoint)->config().vocab, golden.vocab);
  const auto layout = EvenLayout((*checkpoint)->config(), /*stages=*/1, /*ranks=*/1);
  auto cluster = LocalCluster::Start(**checkpoint, {.layout = *layout,
                                                    .numeric = {.kernel_level = level, .kv_type = kv_type},
                                                    .device_of = std::move(device_of)});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  if (!cluster.ok()) return INFINITY;
  double largest = 0;
  uint64_t step_id = 0;
  for (size_t i = 0; i < golden.positions.size(); ++i) {
    const std::vector<float> expected = LogSoftmax(golden.logits.data() + i * golden.vocab, golden.vocab);
    const int length = golden.positions[i] + 1;
    const std::vector<float> whole = Distribution(**cluster, golden, length, length, step_id);
    const std::vector<float> sevens = Distribution(**cluster, golden, length, 7, step_id);
    EXPECT_EQ(whole, sevens) << "a prompt in chunks of 7 must give the same bits";
    if (golden.token_by_token && i + 1 == golden.positions.size()) {
      EXPECT_EQ(whole, Distribution(**cluster, golden, length, 1, step_id)) << "token by token too";
    }
    for (int token = 0; token < golden.vocab; ++token) {
      largest = std::max(largest, std::abs(static_cast<double>(whole[token]) - expected[token]));
    }
  }
  return largest;
}

bool Has(const Checkpoint& checkpoint, bool (*of_interest)(WeightFormat)) {
  const std::vector<TensorKey> keys = checkpoint.Keys();
  return std::any_of(keys.begin(), keys.end(), [&](const TensorKey& key) {
    const TensorInfo& info = *checkpoint.Find(key);
    return info.rows > 1 && of_interest(info.format.format);
  });
}

// How much a product's inputs are off, relative to themselves (root mean square), where a level rounds them.
double RoundingOfActivations(const Checkpoint& checkpoint, kernels::KernelLevel level) {
  // int8, in groups of 32: uniform within half a step of 1/127 of the group's largest, which for 32 values of
  // a normal distribution is on average 2.1 times their root mean square.
  if (Has(checkpoint, IsQuantized)) return 2.1 / 127 / std::sqrt(12.0);
  // bf16 keeps 8 bits: uniform within 2^-9 of the value at most.
  const bool bf16 = Has(checkpoint, [](WeightFormat format) { return format == WeightFormat::kBF16; });
  if (bf16 && level == kernels::KernelLevel::kAvx512Bf16) return std::ldexp(1, -9) / std::sqrt(3.0);
  return 0;
}

// Where nothing is rounded the only difference to transformers is the order of fp32 sums. Else: a layer
// rounds before each of its 4 products and the head before its own, independent errors add up by their
// squares, and so the logits are off by sqrt(4 layers + 1) times one rounding, relative to their spread. Of
// some thousand normal values the largest is within 5 standard deviations. Softmax and gates multiply what is
// inexact on both sides, which this does not follow: three times as much is allowed (seen: up to 2.1 times).
double LargestErrorAllowed(const Golden& golden, const Checkpoint& checkpoint, double rounding,
                           int roundings) {
  if (rounding == 0) return 1e-4;
  double sum = 0, squares = 0;
  for (const float logit : golden.logits) {
    sum += logit;
    squares += static_cast<double>(logit) * logit;
  }
  const double count = static_cast<double>(golden.logits.size());
  const double spread = std::sqrt(squares / count - sum / count * (sum / count));
  return 3 * 5 * rounding * std::sqrt(1.0 * roundings * checkpoint.config().layers + 1) * spread;
}
double LargestErrorAllowed(const Golden& golden, const Checkpoint& checkpoint, kernels::KernelLevel level) {
  return LargestErrorAllowed(golden, checkpoint, RoundingOfActivations(checkpoint, level), /*roundings=*/4);
}

TEST_P(GoldenModel, LogitsMatchTransformers) {
  const Golden golden = ReadGolden(GetParam());
  const auto checkpoint = Checkpoint::Open(golden.checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (kernels::KernelLevel level : kernels::AvailableKernelLevels()) {
    const double error = LargestError(golden, std::string(Name(level)), DType::kF32);
    const double allowed = LargestErrorAllowed(golden, **checkpoint, level);
    EXPECT_LE(error, allowed) << GetParam() << " on " << Name(level);
    RecordProperty(std::string(Name(level)), absl::StrCat(error, " of ", allowed));
    if (std::getenv("PRINT_ERRORS") != nullptr) {
      printf("%-28s %-12s %.2e of %.2e\n", GetParam().c_str(), std::string(Name(level)).c_str(), error,
             allowed);
    }
  }
}

// A short and the longest prompt, where the emulator has no time for all.
Golden ForTestGpu(Golden golden) {
  if (TestEveryLayout()) return golden;
  constexpr size_t kShort = 3;
  const size_t last = golden.positions.size() - 1;
  std::vector<float> logits;
  for (const size_t i : {kShort, last}) {
    logits.insert(logits.end(), golden.logits.begin() + i * golden.vocab,
                  golden.logits.begin() + (i + 1) * golden.vocab);
  }
  golden.positions = {golden.positions[kShort], golden.positions[last]};
  golden.logits = std::move(logits);
  golden.token_by_token = false;
  return golden;
}

// GPUs round activations to bf16 for bf16 and quantised weights, to two such limbs for fp16, and keep all
// that fp32 has. With a bf16 KV cache they round queries, keys, values and attention's weights too: 8
// roundings a layer instead of 4.
double RoundingOfGpus(const Checkpoint& checkpoint) {
  const auto one_limb = [](WeightFormat format) {
    return IsQuantized(format) || format == WeightFormat::kBF16;
  };
  if (Has(checkpoint, one_limb)) return std::ldexp(1, -9) / std::sqrt(3.0);
  if (Has(checkpoint, [](WeightFormat format) { return format == WeightFormat::kF16; }))
    return std::ldexp(1, -17) / std::sqrt(3.0);
  return 0;
}

TEST_P(GoldenModel, LogitsOfGpusMatchTransformers) {
  const Golden golden = ForTestGpu(ReadGolden(GetParam()));
  const auto checkpoint = Checkpoint::Open(golden.checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const double bf16 = std::ldexp(1, -9) / std::sqrt(3.0);
  std::vector<gpu::EmulatedCard> cards = {gpu::kEmulatedHopper};
  if (TestEveryLayout() && !TestGpuIsReal()) cards.push_back(gpu::kEmulatedAmpere);
  for (const gpu::EmulatedCard& card : cards) {
    for (const DType kv_type : {DType::kF32, DType::kBF16}) {
      const double rounding = kv_type == DType::kBF16 ? bf16 : RoundingOfGpus(**checkpoint);
      const double error =
          LargestError(golden, TestGpuLevel(card), kv_type, [&](size_t) { return TestGpu(card); });
      const double allowed =
          LargestErrorAllowed(golden, **checkpoint, rounding, kv_type == DType::kBF16 ? 8 : 4);
      EXPECT_LE(error, allowed) << GetParam() << ", " << TestGpuLevel(card) << ", KV cache of "
                                << Name(kv_type);
      if (std::getenv("PRINT_ERRORS") != nullptr) {
        printf("%-28s %s, KV %s   %.2e of %.2e\n", GetParam().c_str(), card.numeric_class,
               std::string(Name(kv_type)).c_str(), error, allowed);
      }
    }
  }
}

// Whatever a checkpoint's weights look like once they are packed: from a drive they are the same.
TEST_P(GoldenModel, StreamedLayersGiveTheSameBits) {
  const Golden golden = ReadGolden(GetParam());
  const auto checkpoint = Checkpoint::Open(golden.checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const testing_files::TemporaryDirectory directory;
  const auto cache = ShardCache::Open({.directory = directory.path()});
  ASSERT_TRUE(cache.ok()) << cache.status();
  const auto length = static_cast<int>(golden.tokens.size());
  std::vector<float> resident;
  for (const int32_t streamed : {0, 1, 99}) {
    auto cluster = LocalCluster::Start(
        **checkpoint, {.layout = *EvenLayout((*checkpoint)->config(), 1, 1),
                       .numeric = {.kernel_level = std::string(Name(kernels::AvailableKernelLevels().back())),
                                   .kv_type = DType::kF32},
                       .streamed_layers = streamed,
                       .streamed_ends = {.embedding = streamed == 99, .head = streamed == 99},
                       .cache = cache->get()});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    uint64_t step_id = 0;
    const std::vector<float> logits = Distribution(**cluster, golden, length, /*chunk=*/7, step_id);
    if (streamed == 0) resident = logits;
    EXPECT_EQ(logits, resident) << streamed << " layers streamed";
  }
}

// The goldens' margins leave no doubt at the precision of fp32 (tools/goldens).
TEST_P(GoldenModel, GreedyAnswersMatchTransformers) {
  const Golden golden = ReadGolden(GetParam());
  const auto checkpoint = Checkpoint::Open(golden.checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (Has(**checkpoint, IsQuantized)) GTEST_SKIP() << "activations are rounded on every level";
  for (kernels::KernelLevel level : kernels::AvailableKernelLevels()) {
    if (RoundingOfActivations(**checkpoint, level) > 0) continue;
    auto cluster = LocalCluster::Start(
        **checkpoint, {.layout = *EvenLayout((*checkpoint)->config(), 1, 1),
                       .numeric = {.kernel_level = std::string(Name(level)), .kv_type = DType::kF32}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    EngineRequest request{.id = RequestId{1},
                          .prompt = golden.tokens,
                          .max_tokens = static_cast<int32_t>(golden.greedy.size()),
                          .ignore_eos = true};
    request.sampling.temperature = 0;
    const auto answers = RunRequests(**cluster, {}, {std::move(request)});
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_EQ(answers->at(0).tokens, golden.greedy) << GetParam() << " on " << Name(level);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel, ::testing::ValuesIn(GoldenModels()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace bellwether
