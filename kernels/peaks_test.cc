#include "kernels/peaks.h"

#include "gtest/gtest.h"

namespace bellwether::kernels {
namespace {

// How fast a machine is cannot be tested; that every measurement runs and ends can.
TEST(PeaksTest, ReadBandwidthIsPositive) { EXPECT_GT(MeasureReadBandwidth(/*threads=*/2, /*seconds=*/0), 0); }

TEST(PeaksTest, ReadBandwidthKeepsWithinItsBuffer) {
  EXPECT_GT(MeasureReadBandwidth(/*threads=*/3, /*seconds=*/0, /*buffer_bytes_max=*/3 * 4096), 0);
  EXPECT_GT(MeasureReadBandwidth(/*threads=*/1, /*seconds=*/0, /*buffer_bytes_max=*/40 << 20), 0);
  EXPECT_EQ(MeasureReadBandwidth(/*threads=*/3, /*seconds=*/0, /*buffer_bytes_max=*/3 * 4096 - 1), 0);
}

TEST(PeaksTest, EveryLevelHasEveryPeak) {
  for (KernelLevel level : AvailableKernelLevels()) {
    for (Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBF16, Arithmetic::kInt8}) {
      EXPECT_GT(MeasureArithmeticPeak(level, arithmetic, /*threads=*/2, /*seconds=*/0), 0) << Name(level);
    }
  }
}

}  // namespace
}  // namespace bellwether::kernels
