#include "common/log_limiter.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(LogLimiter, ABurstPassesThenOneEachIntervalWithTheCountOfTheOthers) {
  ManualClock clock;
  LogLimiter limiter(3, absl::Seconds(10), &clock);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.Admit(), 0);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(limiter.Admit(), std::nullopt);
  clock.Advance(absl::Seconds(9));
  EXPECT_EQ(limiter.Admit(), std::nullopt);
  clock.Advance(absl::Seconds(1));
  EXPECT_EQ(limiter.Admit(), 1001);
  EXPECT_EQ(limiter.Admit(), std::nullopt);
}

TEST(LogLimiter, QuietGivesTheBurstBackAndNoMore) {
  ManualClock clock;
  LogLimiter limiter(2, absl::Seconds(10), &clock);
  EXPECT_EQ(limiter.Admit(), 0);
  clock.Advance(absl::Hours(10));
  EXPECT_EQ(limiter.Admit(), 0);
  EXPECT_EQ(limiter.Admit(), 0);
  EXPECT_EQ(limiter.Admit(), std::nullopt);
}

}  // namespace
}  // namespace bellwether
