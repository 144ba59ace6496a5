#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"

// What the kernel tests share: they run under every level that this machine has.

namespace bellwether::kernels {

// Rounding one fp32 result changes it by at most this share.
inline constexpr double kRoundoff = 0x1p-24;

class KernelLevelTest : public testing::TestWithParam<KernelLevel> {
 protected:
  const KernelTable& kernels() const { return **GetKernels(GetParam()); }
};

#define BW_INSTANTIATE_FOR_KERNEL_LEVELS(suite)                  \
  INSTANTIATE_TEST_SUITE_P(                                      \
      Levels, suite, testing::ValuesIn(AvailableKernelLevels()), \
      [](const testing::TestParamInfo<KernelLevel>& info) { return std::string(Name(info.param)); })

class TestRandom {
 public:
  explicit TestRandom(uint32_t seed) : bits_(seed) {}
  // In [-1, 1).
  float uniform() { return static_cast<float>(static_cast<int32_t>(bits_())) * 0x1p-31f; }
  // In [lowest, highest].
  int integer(int lowest, int highest) {
    return lowest + static_cast<int>(bits_() % static_cast<uint32_t>(highest - lowest + 1));
  }
  std::vector<float> floats(int64_t count, float magnitude = 1) {
    std::vector<float> values(count);
    for (float& value : values) value = magnitude * uniform();
    return values;
  }

 private:
  std::mt19937 bits_;
};

inline testing::AssertionResult SameBits(const float* a, const float* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::memcmp(a + i, b + i, sizeof(float)) == 0) continue;
    return testing::AssertionFailure()
           << "element " << i << " of " << count << ": " << a[i] << " is not " << b[i];
  }
  return testing::AssertionSuccess();
}
inline testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size())
    return testing::AssertionFailure() << a.size() << " and " << b.size() << " values";
  return SameBits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

// `got` differs from `expected` by at most `tolerance`; NaN never does.
inline testing::AssertionResult Within(double got, double expected, double tolerance) {
  if (std::abs(got - expected) <= tolerance) return testing::AssertionSuccess();
  return testing::AssertionFailure() << got << " is off " << expected << " by " << got - expected
                                     << ", more than " << tolerance;
}

}  // namespace bellwether::kernels
