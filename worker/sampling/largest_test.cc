#include "worker/sampling/largest.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/sorted_largest.h"

namespace bellwether {
namespace {

using kernels::LargestValue;

// 10^5 draws from a hundred rows: smooth ones, and ones in which many logits are equal.
TEST(LargestTest, TheTokenIsTheOneThatTheWholeRowGives) {
  std::mt19937_64 random(1);
  int decided = 0, draws = 0;
  SamplingScratch scratch;
  for (int row = 0; row < 100; ++row) {
    const int vocab = row % 2 == 0 ? 300 : 9000;
    std::vector<float> logits(vocab);
    std::normal_distribution<float> normal(0, row % 5 == 0 ? 1.0f : 4.0f);
    for (float& logit : logits) logit = row % 4 == 3 ? std::round(normal(random)) : normal(random);
    const std::vector<LargestValue> all = kernels::SortedLargest(logits, kernels::kLargestMax);
    for (int draw = 0; draw < 1000; ++draw, ++draws) {
      SamplingOptions options;
      options.temperature = draw % 10 == 0 ? 0.0 : 0.2 + 0.01 * (draw % 200);
      options.top_k = 1 + static_cast<int32_t>(random() % (kernels::kLargestMax - 1));
      options.top_p = draw % 3 == 0 ? 1.0 : 0.5 + 0.005 * (draw % 100);
      options.min_p = draw % 7 == 0 ? 0.05 : 0.0;
      options.seed = random();
      const std::vector<TokenId> tokens(1 + draw % 50, 1);
      const SamplingInput input{.logits = logits, .options = options, .tokens = tokens};
      const int needed = LargestNeeded(input, vocab);
      ASSERT_GT(needed, 0);
      // Others of the batch may need more.
      const int count = needed + static_cast<int>(random() % (kernels::kLargestMax - needed + 1));
      std::vector<LargestValue> values;
      for (size_t chunk = 0; chunk < all.size(); chunk += kernels::kLargestMax)
        values.insert(values.end(), all.begin() + chunk, all.begin() + chunk + count);
      const std::optional<SampledToken> sampled = SampleFromLargest(input, values, count, scratch);
      if (!sampled) continue;
      ++decided;
      const auto expected = Sample(input, scratch);
      ASSERT_TRUE(expected.ok()) << expected.status();
      ASSERT_EQ(sampled->token, expected->token) << "row " << row << ", draw " << draw;
    }
    const bool smooth = row % 4 != 3;
    if (smooth) {
      EXPECT_EQ(decided, draws) << "row " << row;
    }
    decided = draws;
  }
}

TEST(LargestTest, WhatTheyDoNotDecideIsSaid) {
  SamplingScratch scratch;
  SamplingOptions options;
  options.top_k = 3;
  const std::vector<TokenId> tokens = {1};
  const SamplingInput input{.logits = {}, .options = options, .tokens = tokens};
  // Five equals, of which four are known: the fifth may be drawn too.
  const std::vector<float> equal = {1, 2, 2, 2, 2, 2, 0};
  EXPECT_FALSE(SampleFromLargest(input, kernels::SortedLargest(equal, 4), 4, scratch).has_value());
  const std::vector<float> known = {1, 2, 2, 2, 0, 0, 0};
  EXPECT_TRUE(SampleFromLargest(input, kernels::SortedLargest(known, 4), 4, scratch).has_value());
  const std::vector<float> broken = {1, NAN, 2, 3, 4};
  EXPECT_FALSE(SampleFromLargest(input, kernels::SortedLargest(broken, 4), 4, scratch).has_value());
  const std::vector<float> none(5, -INFINITY);
  EXPECT_FALSE(SampleFromLargest(input, kernels::SortedLargest(none, 4), 4, scratch).has_value());
}

TEST(LargestTest, WhoNeedsTheWholeRow) {
  const std::vector<TokenId> tokens = {1};
  const auto needed = [&](const SamplingOptions& options) {
    return LargestNeeded({.logits = {}, .options = options, .tokens = tokens}, 1000);
  };
  SamplingOptions options;
  options.temperature = 0;
  EXPECT_EQ(needed(options), 1);
  options.logprobs = 0;
  EXPECT_EQ(needed(options), 0);
  options = {};
  options.temperature = 0.7;
  options.top_p = 0.9;
  EXPECT_EQ(needed(options), 0) << "the probability of all others counts";
  options.top_k = 40;
  EXPECT_EQ(needed(options), 41);
  options.presence_penalty = 0.5;
  EXPECT_EQ(needed(options), 0);
  options.presence_penalty = 0;
  options.top_k = kernels::kLargestMax;
  EXPECT_EQ(needed(options), 0);
}

}  // namespace
}  // namespace bellwether
