#include "worker/sampling/log_softmax.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "worker/sampling/exp_nonpositive.h"

namespace bellwether {
namespace {

std::vector<float> RandomLogits(size_t size) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

double SlowLogSumExp(const std::vector<float>& logits) {
  long double sum = 0.0L;
  for (float logit : logits) sum += expl(static_cast<long double>(logit));
  return static_cast<double>(logl(sum));
}

TEST(ExpNonPositiveTest, IsCloseToExp) {
  double worst = 0.0;
  for (float x = 0.0f; x > -87.0f; x -= 0.00037f) {
    const double expected = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(ExpNonPositive(x) - expected) / expected);
  }
  EXPECT_LT(worst, 2.5e-7);
  EXPECT_EQ(ExpNonPositive(0.0f), 1.0f);
  EXPECT_EQ(ExpNonPositive(-87.5f), 0.0f);
  EXPECT_EQ(ExpNonPositive(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isnan(ExpNonPositive(std::nanf(""))));
}

TEST(LogSoftmaxTest, EveryTailLength) {
  for (size_t size : {1, 2, 15, 16, 17, 31, 33, 4095, 4096, 4097, 8192, 9001, 60000}) {
    const std::vector<float> logits = RandomLogits(size);
    const double expected = SlowLogSumExp(logits);
    EXPECT_NEAR(LogSumExp(logits), expected, 3e-7) << size;
    EXPECT_NEAR(LogSoftmaxAt(logits, static_cast<TokenId>(size - 1)), logits.back() - expected, 2e-6) << size;
  }
}

TEST(LogSoftmaxTest, TilesComputedApartGiveTheSameBits) {
  const std::vector<float> logits = RandomLogits(3 * kLogSumExpTile + 77);
  std::vector<ExpSum> tiles;
  for (size_t start = 0; start < logits.size(); start += kLogSumExpTile) {
    tiles.push_back(ExpSumOfTile(absl::MakeConstSpan(logits).subspan(start, kLogSumExpTile)));
  }
  ExpSum sum = tiles[0];
  for (size_t i = 1; i < tiles.size(); ++i) sum = MergeExpSums(sum, tiles[i]);
  EXPECT_EQ(LogSumExpOf(sum), LogSumExp(logits));
}

TEST(LogSoftmaxTest, LargeAndMaskedLogits) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_NEAR(LogSumExp({1e30f, 1e30f}), 1e30, 1e24);
  EXPECT_NEAR(LogSumExp({-infinity, 2.0f, -infinity}), 2.0, 1e-7);
  std::vector<float> logits(kLogSumExpTile + 1, -infinity);
  logits.back() = 3.0f;
  EXPECT_NEAR(LogSumExp(logits), 3.0, 1e-7);
  EXPECT_EQ(LogSoftmaxAt(logits, 0), -infinity);
}

TEST(LogSoftmaxTest, TopLogprobsAreSortedAndCut) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};
  const auto top = TopLogprobs(logits, 1.0, 4);
  ASSERT_EQ(top.size(), 4u);
  EXPECT_EQ(top[0].token, 1);
  EXPECT_EQ(top[1].token, 3);
  EXPECT_EQ(top[2].token, 4);
  EXPECT_EQ(top[3].token, 0);
  EXPECT_EQ(top[0].logprob, 1.0f);
  EXPECT_TRUE(TopLogprobs(logits, 1.0, 0).empty());
  EXPECT_EQ(TopLogprobs(logits, 1.0, 100).size(), 5u);
}

}  // namespace
}  // namespace bellwether
