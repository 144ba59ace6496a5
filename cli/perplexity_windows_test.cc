#include "cli/perplexity_windows.h"

#include <gtest/gtest.h>

namespace bellwether {
namespace {

using Windows = std::vector<ScoreWindow>;

TEST(ScoreWindowsTest, SlideAsTransformersHasThem) {
  EXPECT_EQ(ScoreWindows(10, 4, 2), (Windows{{0, 4, 1}, {2, 6, 4}, {4, 8, 6}, {6, 10, 8}}));
  EXPECT_EQ(ScoreWindows(9, 4, 2), (Windows{{0, 4, 1}, {2, 6, 4}, {4, 8, 6}, {6, 9, 8}}));
  EXPECT_EQ(ScoreWindows(6, 4, 3), (Windows{{0, 4, 1}, {3, 6, 4}}));
  EXPECT_EQ(ScoreWindows(4, 4, 1), (Windows{{0, 4, 1}}));
  EXPECT_EQ(ScoreWindows(3, 4, 4), (Windows{{0, 3, 1}}));
}

TEST(ScoreWindowsTest, ThoseThatOnlyTouchLeaveOutTheirFirstToken) {
  EXPECT_EQ(ScoreWindows(8, 4, 4), (Windows{{0, 4, 1}, {4, 8, 5}}));
  EXPECT_EQ(ScoreWindows(9, 4, 4), (Windows{{0, 4, 1}, {4, 8, 5}})) << "the ninth would stand alone";
}

TEST(ScoreWindowsTest, ShortTextsHaveNothingToScore) {
  EXPECT_TRUE(ScoreWindows(0, 4, 2).empty());
  EXPECT_TRUE(ScoreWindows(1, 4, 2).empty());
}

}  // namespace
}  // namespace bellwether
