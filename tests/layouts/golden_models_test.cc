// Every golden checkpoint against Hugging Face transformers: logits of prompts fed in one piece, in pieces of
// 7 and token by token, and the greedy continuation.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "nlohmann/json.hpp"
#include "tests/layouts/local_cluster.h"

namespace bellwether {
namespace {

struct Golden {
  std::vector<TokenId> tokens;
  std::vector<int> positions;
  int vocab = 0;
  std::vector<float> logits;  // [positions][vocab]
  std::vector<TokenId> greedy;
  std::string checkpoint;  // what to open
};

Golden ReadGolden(const std::string& directory) {
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
  golden.checkpoint = directory;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".gguf") golden.checkpoint = entry.path();
  }
  return golden;
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("models"))) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
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
    if (!result.ok() || !entry.sample) continue;
    for (const TokenLogprob& top : result->outputs.at(0).top) logprobs[top.token] = top.logprob;
  }
  Step retire{.epoch = Epoch{1}, .id = StepId{++step_id}, .retired = {sequence}};
  EXPECT_TRUE(cluster.Run(retire).ok());
  return logprobs;
}

class GoldenModel : public ::testing::TestWithParam<std::string> {};

double LargestError(const Golden& golden, const std::string& level, DType kv_type) {
  auto checkpoint = Checkpoint::Open(golden.checkpoint);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return INFINITY;
  EXPECT_EQ((*checkpoint)->config().vocab, golden.vocab);
  const auto layout = EvenLayout((*checkpoint)->config(), /*stages=*/1, /*ranks=*/1);
  auto cluster = LocalCluster::Start(
      **checkpoint, {.layout = *layout, .numeric = {.kernel_level = level, .kv_type = kv_type}});
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
    if (i + 1 == golden.positions.size()) {
      EXPECT_EQ(whole, Distribution(**cluster, golden, length, 1, step_id)) << "token by token too";
    }
    for (int token = 0; token < golden.vocab; ++token) {
      largest = std::max(largest, std::abs(static_cast<double>(whole[token]) - expected[token]));
    }
  }
  return largest;
}

bool HasQuantizedWeights(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  for (const TensorKey& key : (*checkpoint)->Keys()) {
    if (IsQuantized((*checkpoint)->Find(key)->format.format)) return true;
  }
  return false;
}

// Float weights and an fp32 cache: the only difference to transformers is the order of sums. Levels that
// round activations (bf16 products, int8 activations) have bounds of their own below.
TEST_P(GoldenModel, LogitsMatchTransformers) {
  const Golden golden = ReadGolden(GoldenPath("models/" + GetParam()));
  const bool quantized = HasQuantizedWeights(golden.checkpoint);
  for (kernels::KernelLevel level : kernels::AvailableKernelLevels()) {
    const bool rounds_to_bf16 = level == kernels::KernelLevel::kAvx512Bf16;
    const double error = LargestError(golden, std::string(Name(level)), DType::kF32);
    // bf16: each activation is off by 2^-9 of itself, and a logit of these models is a sum of order 10
    // through 3 layers; int8 activations: 1/254 of a group's largest. Both are bounded far below what a wrong
    // formula would give.
    const double bound = quantized ? 1.5 : rounds_to_bf16 ? 0.5 : 1e-4;
    EXPECT_LE(error, bound) << GetParam() << " on " << Name(level);
    RecordProperty(std::string(Name(level)), std::to_string(error));
    if (std::getenv("PRINT_ERRORS") != nullptr) {
      printf("%-28s %-12s %.2e\n", GetParam().c_str(), std::string(Name(level)).c_str(), error);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel, ::testing::ValuesIn(GoldenNames()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace bellwether
