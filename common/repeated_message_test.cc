#include "common/repeated_message.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(RepeatedMessageTest, PausesGrowToAMinute) {
  RepeatedMessage message;
  std::vector<int> told;
  for (int second = 0; second < 300; ++second) {
    if (message.IsDue(absl::Seconds(second), "no route")) told.push_back(second);
  }
  EXPECT_THAT(told, ::testing::ElementsAre(0, 1, 3, 7, 15, 31, 63, 123, 183, 243));
  EXPECT_EQ(message.age(absl::Seconds(300)), absl::Seconds(300));
}

TEST(RepeatedMessageTest, AnotherMessageIsToldAtOnce) {
  RepeatedMessage message;
  EXPECT_TRUE(message.IsDue(absl::ZeroDuration(), ""));
  EXPECT_FALSE(message.IsDue(absl::ZeroDuration(), ""));
  EXPECT_TRUE(message.IsDue(absl::Seconds(0.5), "refused"));
  EXPECT_FALSE(message.IsDue(absl::Seconds(1), "refused"));
  EXPECT_EQ(message.age(absl::Seconds(1)), absl::Seconds(0.5));
  message.Reset();
  EXPECT_TRUE(message.IsDue(absl::Seconds(1), "refused"));
}

}  // namespace
}  // namespace bellwether
