#include "common/system_random.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(SystemRandomTest, FillsAllOfItAndNothingElse) {
  std::vector<unsigned char> bytes(1002, 7);
  FillRandom(bytes.data() + 1, 1000);  // more than the 256 that never come in pieces
  EXPECT_EQ(bytes.front(), 7);
  EXPECT_EQ(bytes.back(), 7);
  // 1000 random bytes hold each of the 256 values about four times; never so few of them.
  std::sort(bytes.begin(), bytes.end());
  EXPECT_GT(std::unique(bytes.begin(), bytes.end()) - bytes.begin(), 200);
}

}  // namespace
}  // namespace bellwether
