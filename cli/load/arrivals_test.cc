#include "cli/load/arrivals.h"

#include <cmath>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(PoissonArrivals, GapsHaveTheRateAndAreAsSpreadAsTheyAreLong) {
  constexpr int kCount = 20000;
  const std::vector<absl::Duration> arrivals = PoissonArrivals(5, kCount, 1);
  ASSERT_EQ(arrivals.size(), size_t{kCount});
  EXPECT_EQ(arrivals.front(), absl::ZeroDuration());
  double sum = 0, squares = 0;
  for (int i = 1; i < kCount; ++i) {
    const double gap = absl::ToDoubleSeconds(arrivals[i] - arrivals[i - 1]);
    ASSERT_GE(gap, 0);
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / (kCount - 1);
  EXPECT_NEAR(mean, 0.2, 0.006);
  EXPECT_NEAR(std::sqrt(squares / (kCount - 1) - mean * mean), 0.2, 0.01);  // exponential: both are the same
}

TEST(PoissonArrivals, DependOnTheSeedAlone) {
  EXPECT_EQ(PoissonArrivals(2, 50, 9), PoissonArrivals(2, 50, 9));
  EXPECT_NE(PoissonArrivals(2, 50, 9), PoissonArrivals(2, 50, 8));
}

}  // namespace
}  // namespace bellwether
