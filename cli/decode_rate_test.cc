#include "cli/decode_rate.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

// `count` tokens, one a second, the first at `first`.
std::vector<absl::Duration> EverySecond(int first, int count) {
  std::vector<absl::Duration> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(absl::Seconds(first + i));
  return tokens;
}

TEST(DecodeRate, CountsTheTokensAfterTheFirst) {
  EXPECT_DOUBLE_EQ(DecodeRate({EverySecond(3, 11)}), 1);
  EXPECT_DOUBLE_EQ(DecodeRate({EverySecond(3, 11), EverySecond(3, 11)}), 2);
}

// Two streams that share one processor: alone a token each second, together one each in two. Each one's time
// alone made both look faster, 20 tokens in 15 seconds.
TEST(DecodeRate, TimeAloneCountsForNobody) {
  std::vector<absl::Duration> first = EverySecond(0, 6), second;
  for (int i = 1; i <= 5; ++i) first.push_back(absl::Seconds(5 + 2 * i));
  for (int i = 0; i <= 5; ++i) second.push_back(absl::Seconds(5 + 2 * i));
  for (int i = 1; i <= 5; ++i) second.push_back(absl::Seconds(15 + i));
  EXPECT_DOUBLE_EQ(DecodeRate({first, second}), 1);
}

TEST(DecodeRate, WithoutATimeTogetherThereIsNone) {
  EXPECT_EQ(DecodeRate({EverySecond(0, 5), EverySecond(4, 5)}), 0);
  EXPECT_EQ(DecodeRate({EverySecond(0, 5), {}}), 0);
  EXPECT_EQ(DecodeRate({}), 0);
}

}  // namespace
}  // namespace bellwether
