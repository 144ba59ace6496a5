// Values as sums of bf16 limbs (weights.h): how exact that is, and what becomes of a product.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "common/dtype.h"
#include "gtest/gtest.h"
#include "kernels/gpu/operand.h"
#include "kernels/gpu/testing/random_matrix.h"
#include "kernels/gpu/unpack.h"

namespace bellwether::gpu {
namespace {

// What `limbs` limbs of a value leave.
float Rest(float value, int limbs) {
  float other = 0;
  for (int limb = 0; limb < limbs; ++limb) TakeLimbs(value, other);
  return value;
}

TEST(LimbsTest, TwoHoldEveryFp16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F32FromF16(static_cast<uint16_t>(bits));
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(Rest(value, Limbs(WeightFormat::kF16)), 0.0f) << value;
  }
}

TEST(LimbsTest, ThreeHoldFp32AndTwoSeventeenBitsOfIt) {
  TestRandom random(1);
  for (int i = 0; i < 200'000; ++i) {
    const float size = std::ldexp(random.Between(1, 2), random.Below(235) - 110);
    const float value = random.Below(2) == 0 ? size : -size;
    ASSERT_EQ(Rest(value, Limbs(WeightFormat::kF32)), 0.0f) << value;
    ASSERT_LE(std::abs(Rest(value, 2)), size * 0x1p-17f) << value;
  }
  // Smaller ones lose what bf16 has no numbers for.
  EXPECT_EQ(Rest(0x1.234567p-126f, 3), 0x1.234567p-126f - 0x1.24p-126f);
}

// An infinity that was multiplied is no number in the end, where one chain of additions would have kept it.
TEST(LimbsTest, InfinityLeavesNaN) {
  for (const float value : {HUGE_VALF, -HUGE_VALF, 0x1.fffffep127f, 0x1.ffp127f}) {
    EXPECT_TRUE(std::isnan(Rest(value, 2))) << value;
  }
  EXPECT_EQ(Rest(0x1.fefffep127f, 3), 0.0f) << "the largest below";
}

TEST(LimbsTest, UnpackingSplitsWhatTheFragmentHolds) {
  const float values[8] = {1.0f, 0x1.ffcp0f, -0x1.554p-3f, 0x1p-24f, 65504.0f, -0.0f, 0x1.ffcp-15f, 3.14f};
  uint16_t halves[2][8];  // of a step each
  float floats[2][8];
  for (int i = 0; i < 8; ++i) {
    halves[0][i] = 0;
    halves[1][i] = F16FromF32(values[i]);
    floats[0][i] = 0;
    floats[1][i] = values[i] * 1.2345678f;
  }
  Words4 unit16[2], unit32[4];
  std::memcpy(unit16, halves, sizeof(halves));
  std::memcpy(unit32, floats, sizeof(floats));
  uint32_t two[2][4], three[3][4];
  UnpackLimbs<WeightFormat::kF16>(unit16, 1, two);
  UnpackLimbs<WeightFormat::kF32>(unit32, 1, three);
  for (int i = 0; i < 8; ++i) {
    double sum16 = 0, sum32 = 0;
    const auto limb = [i](const uint32_t(&words)[4]) {
      return F32FromBF16(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
    };
    for (const auto& words : two) sum16 += limb(words);
    for (const auto& words : three) sum32 += limb(words);
    EXPECT_EQ(sum16, F32FromF16(halves[1][i])) << i;
    EXPECT_EQ(sum32, floats[1][i]) << i;
    EXPECT_EQ(limb(three[0]), F32FromBF16(BF16FromF32(floats[1][i]))) << i;
  }
}

TEST(LimbsTest, ProductsAreThoseThatMatterTheLargestFirst) {
  std::vector<std::pair<int, int>> products;
  const auto add = [&](int limb, int limb_of_x) { products.emplace_back(limb, limb_of_x); };
  ForLimbProducts<2>(add);
  EXPECT_EQ(products, (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}}));
  products.clear();
  ForLimbProducts<3>(add);
  EXPECT_EQ(products, (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {0, 2}, {1, 1}, {2, 0}}));
}

// How far a product is from the exact one, in units of the sum of its terms' sizes: the largest of many.
double LargestError(WeightFormat format, int64_t cols, const TensorCoreClass& numerics) {
  const RandomMatrix matrix({.rows = 40, .cols = cols, .format = format}, 5);
  TestRandom random(6);
  const std::vector<float> x = random.Wide(cols);
  double largest = 0;
  for (int64_t output = 0; output < 40; ++output) {
    double exact = 0, size = 0;
    for (int64_t col = 0; col < cols; ++col) {
      const double term = static_cast<double>(matrix.values[output * cols + col]) * x[col];
      exact += term;
      size += std::abs(term);
    }
    const float product = ReferenceProduct(matrix, output, x.data(), numerics).Roots()[0];
    largest = std::max(largest, std::abs(product - exact) / size);
  }
  return largest;
}

// Each step of the first sum cuts its terms 25 (Ampere 24) bits below the largest, and each addition of
// segments rounds; what limbs leave comes on top, which counts with two. bf16 is off by a rounding of its
// activations.
TEST(LimbsTest, ProductsAreAsPreciseAsTheirFormat) {
  for (const auto& [numerics, unit] : {std::pair{kHopperTensorCore, 0x1p-24}, {kAmpereTensorCore, 0x1p-23}}) {
    EXPECT_LT(LargestError(WeightFormat::kF32, 1024, numerics), 4 * unit);
    EXPECT_LT(LargestError(WeightFormat::kF16, 1024, numerics), 4 * unit + 0x1p-15);
    EXPECT_GT(LargestError(WeightFormat::kBF16, 1024, numerics), 0x1p-14);
  }
}

}  // namespace
}  // namespace bellwether::gpu
