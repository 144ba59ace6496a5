#include "cli/load/length_distribution.h"

#include "common/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

TEST(LengthDistribution, OneNumberIsAlwaysThatLength) {
  const auto length = LengthDistribution::Parse("256");
  ASSERT_TRUE(length.ok()) << length.status();
  for (const double uniform : {0.0, 0.3, 0.999999}) EXPECT_EQ(length->At(uniform), 256);
}

TEST(LengthDistribution, ARangeHasBothEndsAndEachLengthAsOften) {
  const auto length = LengthDistribution::Parse("3-6");
  ASSERT_TRUE(length.ok()) << length.status();
  int seen[8] = {};
  for (int i = 0; i < 4000; ++i) ++seen[length->At(i / 4000.0)];
  EXPECT_THAT(seen, testing::ElementsAre(0, 0, 0, 1000, 1000, 1000, 1000, 0));
}

TEST(LengthDistribution, ANormalOneHasItsMeanAndDeviationAndIsNeverShorterThanOne) {
  const auto length = LengthDistribution::Parse("200~40");
  ASSERT_TRUE(length.ok()) << length.status();
  double sum = 0, squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double value = length->At(UniformFromCounter(7, 0, i));
    sum += value;
    squares += value * value;
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 200, 1.5);
  EXPECT_NEAR(std::sqrt(squares / kDraws - mean * mean), 40, 1.5);
  EXPECT_EQ(LengthDistribution::Parse("2~1000")->At(0), 1);
}

TEST(LengthDistribution, OtherTextsAreRefusedWithWhatToWrite) {
  for (const char* text :
       {"", "x", "0", "-5", "5-", "9-3", "1.5", "5~-1", "5~", "99999999999", "1-99999999"}) {
    const auto length = LengthDistribution::Parse(text);
    ASSERT_TRUE(absl::IsInvalidArgument(length.status())) << text;
    EXPECT_THAT(std::string(length.status().message()), HasSubstr("write 256, 100-300"));
  }
}

}  // namespace
}  // namespace bellwether
