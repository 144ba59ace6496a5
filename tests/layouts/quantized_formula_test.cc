// Whole quantised models against our own formula in fp64. The goldens of transformers, which do not round
// activations, can only say that a quantised model is about right.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "nlohmann/json.hpp"
#include "tests/layouts/fp64_oracle.h"
#include "tests/layouts/local_cluster.h"

namespace bellwether {
namespace {

struct Case {
  std::string golden;  // whose checkpoint and tokens
  Quantize quantize = Quantize::kNone;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.golden; }

std::vector<TokenId> TokensOf(const Case& c) {
  std::ifstream file(GoldenPath("models/" + c.golden + "/golden.json"));
  return nlohmann::json::parse(file)["token_ids"].get<std::vector<TokenId>>();
}

// Log-probabilities of what follows `tokens`, which are one step.
std::vector<float> Logprobs(LocalCluster& cluster, absl::Span<const TokenId> tokens, int vocab,
                            uint64_t& step_id) {
  const auto count = static_cast<int32_t>(tokens.size());
  const SequenceId sequence{step_id + 1};
  Admission admission{.sequence = sequence, .tokens = {tokens.begin(), tokens.end()}, .prompt_length = count};
  admission.sampling.temperature = 0;
  admission.sampling.logprobs = vocab;
  const StepEntry entry{.sequence = sequence, .count = count, .new_blocks = {0}, .sample = true};
  const auto result = cluster.Run(
      {.epoch = Epoch{1}, .id = StepId{++step_id}, .admissions = {admission}, .entries = {entry}});
  EXPECT_TRUE(result.ok()) << result.status();
  std::vector<float> logprobs(vocab, -INFINITY);
  if (result.ok()) {
    for (const TokenLogprob& top : result->outputs.at(0).top) logprobs[top.token] = top.logprob;
  }
  EXPECT_TRUE(cluster.Run({.epoch = Epoch{1}, .id = StepId{++step_id}, .retired = {sequence}}).ok());
  return logprobs;
}

// A sum of n terms in fp32 is off by sqrt(n) roundings of 2^-24, relative to its spread; a layer has 4
// products after each other and the head one, and independent errors add up by their squares. 5 standard
// deviations hold thousands of values (seen: up to a third of that).
double ErrorAllowed(const Fp64Oracle& oracle, int32_t layers, double spread) {
  const double product = std::sqrt(static_cast<double>(oracle.cols_max())) * std::ldexp(1, -24);
  return 5 * product * std::sqrt(4.0 * layers + 1) * spread;
}

bool HasMatrix(const Checkpoint& checkpoint, bool (*of_interest)(WeightFormat)) {
  const std::vector<TensorKey> keys = checkpoint.Keys();
  return std::any_of(keys.begin(), keys.end(), [&](const TensorKey& key) {
    const TensorInfo& info = *checkpoint.Find(key);
    return info.rows > 1 && of_interest(info.format.format);
  });
}
bool IsBF16(WeightFormat format) { return format == WeightFormat::kBF16; }

class QuantizedFormula : public ::testing::TestWithParam<Case> {};

// Prompts of one to four tokens: long enough for attention and positions, short enough that many have no
// activation that could round either way. What those give is held to the last bits of fp32.
TEST_P(QuantizedFormula, HoldsToTheLastBits) {
  const Case& c = GetParam();
  const auto checkpoint = Checkpoint::Open(GoldenCheckpoint(c.golden));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  const std::vector<TokenId> tokens = TokensOf(c);
  const Fp64Oracle oracle(**checkpoint, c.quantize);
  for (const kernels::KernelLevel level : kernels::AvailableKernelLevels()) {
    if (level == kernels::KernelLevel::kAvx512Bf16 && HasMatrix(**checkpoint, IsBF16)) {
      continue;  // rounds the activations of bf16 products too
    }
    auto cluster = LocalCluster::Start(
        **checkpoint, {.layout = *EvenLayout(config, 1, 1),
                       .numeric = {.kernel_level = std::string(Name(level)), .quantize = c.quantize}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    uint64_t step_id = 0;
    int compared = 0, longest = 0;
    double worst = 0;
    for (size_t begin = 0; begin + 4 <= tokens.size(); ++begin) {
      const int length = 1 + static_cast<int>(begin % 4);
      const auto prompt = absl::MakeConstSpan(tokens).subspan(begin, length);
      const Fp64Oracle::Answer expected = oracle.Ask(prompt);
      if (expected.close_calls > 0) continue;
      const std::vector<float> logprobs = Logprobs(**cluster, prompt, config.vocab, step_id);
      const double allowed = ErrorAllowed(oracle, config.layers, expected.spread);
      for (int token = 0; token < config.vocab; ++token) {
        worst = std::max(worst, std::abs(logprobs[token] - expected.logprobs[token]) / allowed);
      }
      ++compared;
      longest = std::max(longest, length);
    }
    EXPECT_LE(worst, 1) << Name(level);
    EXPECT_GE(compared, 4) << "too few to say anything";
    EXPECT_GE(longest, 2);
    if (std::getenv("PRINT_ERRORS") != nullptr) {
      printf("%-30s %-10s worst %.3f of what is allowed, %d prompts of up to %d tokens\n", c.golden.c_str(),
             std::string(Name(level)).c_str(), worst, compared, longest);
    }
  }
}

// Every quantised golden, and some that --quantize rounds.
std::vector<Case> Cases() {
  std::vector<Case> cases = {{"llama-mha", Quantize::kInt8},
                             {"llama-mha", Quantize::kInt4},
                             {"llama-biased", Quantize::kInt4},
                             {"bloom-5-heads-aliases", Quantize::kInt8},
                             {"bloom-3-heads-residual", Quantize::kInt4}};
  for (const std::string& model : GoldenModels()) {
    const auto checkpoint = Checkpoint::Open(GoldenCheckpoint(model));
    if (checkpoint.ok() && HasMatrix(**checkpoint, IsQuantized)) cases.push_back({model});
  }
  return cases;
}
std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.golden;
  if (info.param.quantize != Quantize::kNone)
    name += info.param.quantize == Quantize::kInt8 ? "_int8" : "_int4";
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, QuantizedFormula, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace bellwether
