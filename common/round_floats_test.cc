#include "common/round_floats.h"

#include <bit>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

// Bits of a value, with all NaN alike.
uint32_t Bits(float value) { return std::isnan(value) ? 0x7fc00000u : std::bit_cast<uint32_t>(value); }

TEST(RoundFloats, IsTheWayThereAndBack) {
  uint32_t bits = 1;
  for (int i = 0; i < 2000000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const float value = std::bit_cast<float>(bits);
    float half = value, brain = value;
    RoundFloats(WeightFormat::kF16, absl::MakeSpan(&half, 1));
    RoundFloats(WeightFormat::kBF16, absl::MakeSpan(&brain, 1));
    ASSERT_EQ(Bits(half), Bits(F32FromF16(F16FromF32(value)))) << value;
    ASSERT_EQ(Bits(brain), Bits(F32FromBF16(BF16FromF32(value)))) << value;
  }
}

TEST(RoundFloats, SaysWhatNoLongerFits) {
  std::vector<float> values = {1, -65519, INFINITY, NAN};
  EXPECT_TRUE(RoundFloats(WeightFormat::kF16, absl::MakeSpan(values)));
  EXPECT_EQ(values[1], -65504);
  values = {1, -65520};
  EXPECT_FALSE(RoundFloats(WeightFormat::kF16, absl::MakeSpan(values)));
  values = {-65520, 3.4e38f};
  EXPECT_TRUE(RoundFloats(WeightFormat::kF32, absl::MakeSpan(values)));
  EXPECT_FALSE(RoundFloats(WeightFormat::kBF16, absl::MakeSpan(values)));
}

}  // namespace
}  // namespace bellwether
