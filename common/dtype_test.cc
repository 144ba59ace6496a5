#include "common/dtype.h"

#include <bit>
#include <cmath>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(F16, EveryValueSurvivesARoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = F32FromF16(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromF16(F16FromF32(value))));
    } else {
      EXPECT_EQ(F16FromF32(value), half);
    }
  }
}

#if defined(__FLT16_MANT_DIG__)  // clang 14 has none here
TEST(F16, RoundsLikeTheCompilersOwnType) {
  uint32_t bits = 1;
  for (int i = 0; i < 2000000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value)) continue;
    const _Float16 expected = static_cast<_Float16>(value);
    ASSERT_EQ(F16FromF32(value), std::bit_cast<uint16_t>(expected)) << value;
  }
}
#endif

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(BF16FromF32(1.0f), 0x3f80);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // halfway, to even
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(NAN))));
}

}  // namespace
}  // namespace bellwether
