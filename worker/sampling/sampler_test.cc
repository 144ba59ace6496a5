#include "worker/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <random>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/sampling/log_softmax.h"

namespace bellwether {
namespace {

using nlohmann::json;

struct GoldenCase {
  std::string description;
  std::vector<float> logits;
  std::vector<TokenId> tokens;
  int32_t prompt_length;
  SamplingOptions options;
  TokenId greedy;
  std::vector<TokenId> kept;
  std::vector<double> probabilities;
};

std::vector<GoldenCase> ReadGoldens() {
  std::ifstream file("tests/goldens/sampling/filtered.json");
  const json golden = json::parse(file);
  std::vector<GoldenCase> cases;
  for (const json& entry : golden["cases"]) {
    GoldenCase c;
    c.logits = golden["logits"][entry["logits"].get<int>()].get<std::vector<float>>();
    c.tokens = entry["tokens"].get<std::vector<TokenId>>();
    c.prompt_length = entry["prompt_length"];
    c.options.temperature = entry.value("temperature", 1.0);
    c.options.top_k = entry.value("top_k", 0);
    c.options.top_p = entry.value("top_p", 1.0);
    c.options.min_p = entry.value("min_p", 0.0);
    c.options.repetition_penalty = entry.value("repetition_penalty", 1.0);
    c.options.presence_penalty = entry.value("presence_penalty", 0.0);
    c.options.frequency_penalty = entry.value("frequency_penalty", 0.0);
    c.options.min_tokens = entry.value("min_tokens", 0);
    if (entry.contains("logit_bias")) entry["logit_bias"].get_to(c.options.logit_bias);
    if (entry.contains("ending_tokens")) entry["ending_tokens"].get_to(c.options.ending_tokens);
    c.greedy = entry["greedy"];
    entry["kept"].get_to(c.kept);
    entry["probabilities"].get_to(c.probabilities);
    json options = entry;
    for (const char* key : {"tokens", "kept", "probabilities"}) options.erase(key);
    c.description = options.dump();
    cases.push_back(std::move(c));
  }
  return cases;
}

SamplingInput InputOf(const GoldenCase& c) { return {c.logits, c.options, c.tokens, c.prompt_length, 0}; }

TEST(SamplerTest, FilteredDistributionsAreHuggingFaces) {
  const std::vector<GoldenCase> cases = ReadGoldens();
  ASSERT_GE(cases.size(), 80u);
  SamplingScratch scratch;
  for (const GoldenCase& c : cases) {
    SCOPED_TRACE(c.description);
    const auto distribution = FilteredDistribution(InputOf(c), scratch);
    ASSERT_TRUE(distribution.ok()) << distribution.status();
    ASSERT_EQ(distribution->size(), c.kept.size());
    for (size_t i = 0; i < c.kept.size(); ++i) {
      EXPECT_EQ((*distribution)[i].token, c.kept[i]);
      EXPECT_NEAR((*distribution)[i].probability, c.probabilities[i], 1e-6);
    }
  }
}

TEST(SamplerTest, TemperatureZeroTakesTheLargestProcessedLogit) {
  SamplingScratch scratch;
  for (GoldenCase& c : ReadGoldens()) {
    SCOPED_TRACE(c.description);
    c.options.temperature = 0.0;
    const auto sampled = Sample(InputOf(c), scratch);
    ASSERT_TRUE(sampled.ok());
    EXPECT_EQ(sampled->token, c.greedy);
  }
}

TEST(SamplerTest, TiesGoToTheLowestId) {
  SamplingScratch scratch;
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f, 3.0f, 3.0f};
  SamplingOptions options;
  options.temperature = 0.0;
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch)->token, 1);
  // Two of the three equal ones are needed to reach 0.5: the lower ids stay.
  options.temperature = 1.0;
  options.top_p = 0.5;
  const auto distribution = FilteredDistribution({logits, options, {}, 0, 0}, scratch);
  ASSERT_EQ(distribution->size(), 2u);
  EXPECT_EQ((*distribution)[0].token, 1);
  EXPECT_EQ((*distribution)[1].token, 3);
}

std::vector<float> RandomLogits(size_t size, float deviation) {
  std::mt19937 random(99);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Seeds are fixed, so a bound of four standard deviations either holds for ever or never did.
void ExpectDrawsFollowDistribution(const std::vector<float>& logits, const SamplingOptions& options) {
  SamplingScratch scratch;
  std::vector<TokenId> tokens(5, 0);
  const auto distribution = *FilteredDistribution({logits, options, tokens, 5, 0}, scratch);
  constexpr int kDraws = 20000;
  std::map<TokenId, int> count;
  for (int i = 0; i < kDraws; ++i) {
    // A choice number is as good a counter as a position.
    const auto sampled = Sample({logits, options, tokens, 5, i}, scratch);
    ASSERT_TRUE(sampled.ok());
    ++count[sampled->token];
  }
  double chi_square = 0.0;
  int degrees = -1;
  double rest_expected = 0.0;
  int rest_count = kDraws;
  for (const auto& [token, probability] : distribution) {
    const double expected = probability * kDraws;
    if (expected < 5.0) {
      rest_expected += expected;
      continue;
    }
    chi_square += (count[token] - expected) * (count[token] - expected) / expected;
    rest_count -= count[token];
    ++degrees;
  }
  if (rest_expected >= 5.0) {
    chi_square += (rest_count - rest_expected) * (rest_count - rest_expected) / rest_expected;
    ++degrees;
  }
  ASSERT_GT(degrees, 1);
  EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2.0 * degrees));
}

TEST(SamplerTest, DrawsFollowTheFilteredDistribution) {
  const std::vector<float> logits = RandomLogits(100, 1.5f);
  SamplingOptions options;
  options.seed = 2024;
  ExpectDrawsFollowDistribution(logits, options);
  options.top_k = 12;
  ExpectDrawsFollowDistribution(logits, options);
  options.top_p = 0.8;
  options.temperature = 1.5;
  ExpectDrawsFollowDistribution(logits, options);
}

TEST(SamplerTest, ADrawDependsOnSeedChoiceAndPositionOnly) {
  const std::vector<float> logits = RandomLogits(1000, 0.1f);
  SamplingOptions options;
  SamplingScratch fresh, used;
  std::vector<TokenId> tokens(3, 7);
  std::vector<TokenId> first;
  for (uint64_t seed : {1ull, 2ull}) {
    for (int32_t choice : {0, 1}) {
      for (size_t length : {3u, 4u}) {
        options.seed = seed;
        tokens.resize(length, 7);
        const TokenId token = Sample({logits, options, tokens, 3, choice}, fresh)->token;
        // Another prompt length or a scratch that has seen other work changes nothing.
        EXPECT_EQ(Sample({logits, options, tokens, 1, choice}, used)->token, token);
        first.push_back(token);
      }
    }
  }
  std::sort(first.begin(), first.end());
  EXPECT_EQ(std::unique(first.begin(), first.end()), first.end());
}

// The same distribution by full sorts, as Hugging Face writes it.
std::vector<TokenProbability> SortedNucleus(const std::vector<float>& logits, double top_p) {
  const double log_sum_exp = LogSumExp(logits);
  std::vector<TokenProbability> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    all.push_back({static_cast<TokenId>(i), std::exp(logits[i] - log_sum_exp)});
  }
  std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.probability < b.probability; });
  double cumulative = 0.0;
  size_t removed = 0;
  while (removed + 1 < all.size() && cumulative + all[removed].probability <= 1.0 - top_p) {
    cumulative += all[removed++].probability;
  }
  all.erase(all.begin(), all.begin() + removed);
  std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.token < b.token; });
  return all;
}

TEST(SamplerTest, NucleusOfALargeVocabulary) {
  SamplingScratch scratch;
  for (float deviation : {0.2f, 2.0f, 5.0f}) {
    const std::vector<float> logits = RandomLogits(100003, deviation);
    for (double top_p : {0.01, 0.5, 0.95}) {
      SCOPED_TRACE(testing::Message() << "deviation " << deviation << " top_p " << top_p);
      SamplingOptions options;
      options.top_p = top_p;
      const auto distribution = *FilteredDistribution({logits, options, {}, 0, 0}, scratch);
      const auto expected = SortedNucleus(logits, top_p);
      // The least likely ones weigh so little that rounding decides over a few of them.
      EXPECT_NEAR(static_cast<double>(distribution.size()), static_cast<double>(expected.size()),
                  2.0 + 2e-5 * static_cast<double>(expected.size()));
      EXPECT_TRUE(std::is_sorted(distribution.begin(), distribution.end(),
                                 [](auto& a, auto& b) { return a.token < b.token; }));
    }
  }
}

TEST(SamplerTest, OddInputs) {
  SamplingScratch scratch;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  SamplingOptions options;
  std::vector<float> logits = {0.5f, nan, 1.0f};
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch).status().code(), absl::StatusCode::kDataLoss);
  options.temperature = 0.0;
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch).status().code(), absl::StatusCode::kDataLoss);

  logits = {0.5f, 2.0f, 1.0f};
  options.min_tokens = 1;
  options.ending_tokens = {0, 1, 2, 500, -1};
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch).status().code(), absl::StatusCode::kInternal);
  options.ending_tokens = {1};
  options.temperature = 1e-300;  // too small for a float: only the best is left
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch)->token, 2);

  // Ids of the prompt that have no row are passed over.
  options = SamplingOptions();
  options.temperature = 0.0;
  options.repetition_penalty = 4.0;
  options.frequency_penalty = 1.0;
  options.logit_bias = {{7, 100.0f}};
  const std::vector<TokenId> tokens = {1000, 1, -1, 1000};
  EXPECT_EQ(Sample({logits, options, tokens, 3, 0}, scratch)->token, 2);
}

TEST(SamplerTest, ExtremePenaltiesStayFinite) {
  const std::vector<float> logits = {3.0f, -2.0f, 0.0f, 1.0f};
  const std::vector<TokenId> tokens = {0, 1, 2};
  for (const double penalty : {1e-308, 1e-45, 1e-30, 1e30, 1e45, 1e308}) {
    for (const double temperature : {0.0, 1e-40, 1.0}) {
      SamplingOptions options;
      options.repetition_penalty = penalty;
      options.temperature = temperature;
      SamplingScratch scratch;
      const auto sampled = Sample({logits, options, tokens, /*prompt_length=*/3, 0}, scratch);
      ASSERT_TRUE(sampled.ok()) << penalty << " " << sampled.status();
      if (temperature < 1) {
        EXPECT_EQ(sampled->token, penalty < 1 ? 0 : 3);
      }
    }
  }
}

TEST(SamplerTest, LogprobsAreOfTheRawLogits) {
  SamplingScratch scratch;
  const std::vector<float> logits = {1.0f, 2.0f, 2.0f, -3.0f};
  const double log_sum = std::log(std::exp(1.0) + 2 * std::exp(2.0) + std::exp(-3.0));
  SamplingOptions options;
  options.temperature = 0.0;
  options.logit_bias = {{3, 50.0f}};
  EXPECT_EQ(Sample({logits, options, {}, 0, 0}, scratch)->logprob, 0.0f);  // none wanted
  options.logprobs = 3;
  const auto sampled = Sample({logits, options, {}, 0, 0}, scratch);
  EXPECT_EQ(sampled->token, 3);
  EXPECT_NEAR(sampled->logprob, -3.0 - log_sum, 1e-6);
  ASSERT_EQ(sampled->top.size(), 3u);
  EXPECT_EQ(sampled->top[0].token, 1);
  EXPECT_EQ(sampled->top[1].token, 2);
  EXPECT_EQ(sampled->top[2].token, 0);
  EXPECT_NEAR(sampled->top[2].logprob, 1.0 - log_sum, 1e-6);
}

}  // namespace
}  // namespace bellwether
