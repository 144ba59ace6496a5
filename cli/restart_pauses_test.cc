#include "cli/restart_pauses.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(RestartPausesTest, GrowUpToALimit) {
  RestartPauses pauses;
  for (const int milliseconds : {200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}) {
    EXPECT_EQ(pauses.Next(absl::Seconds(1)), absl::Milliseconds(milliseconds));
  }
}

// After eight kills in as many weeks a worker was missed for half a minute.
TEST(RestartPausesTest, BeginAnewAfterAProcessThatRanWell) {
  RestartPauses pauses;
  for (int i = 0; i < 20; ++i) pauses.Next(absl::Seconds(1));
  EXPECT_EQ(pauses.Next(absl::Hours(24)), absl::Milliseconds(200));
  EXPECT_EQ(pauses.Next(absl::Seconds(1)), absl::Milliseconds(400));
}

}  // namespace
}  // namespace bellwether
