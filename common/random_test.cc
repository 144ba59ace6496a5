#include "common/random.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

using Words = std::array<uint32_t, 4>;

// The three known answers for philox4x32-10 that the authors publish with Random123 (kat_vectors).
TEST(RandomTest, PhiloxKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, EachArgumentCounts) {
  std::set<double> seen;
  for (uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (int32_t choice : {0, 1, 127}) {
      for (int64_t position : {int64_t{0}, int64_t{1}, int64_t{1} << 32}) {
        const double u = UniformFromCounter(seed, choice, position);
        EXPECT_GE(u, 0.0);
        EXPECT_LT(u, 1.0);
        EXPECT_EQ(u, UniformFromCounter(seed, choice, position));
        seen.insert(u);
      }
    }
  }
  EXPECT_EQ(seen.size(), 36u);
}

TEST(RandomTest, ConsecutivePositionsAreUniform) {
  constexpr int kBuckets = 100;
  constexpr int kDraws = 100000;
  std::vector<int> count(kBuckets, 0);
  for (int64_t position = 0; position < kDraws; ++position) {
    ++count[static_cast<int>(UniformFromCounter(42, 0, position) * kBuckets)];
  }
  double chi_square = 0.0;
  const double expected = static_cast<double>(kDraws) / kBuckets;
  for (int n : count) chi_square += (n - expected) * (n - expected) / expected;
  // 99 degrees of freedom: mean 99, deviation 14; the seed is fixed, so this either holds or never does.
  EXPECT_NEAR(chi_square, 99.0, 4 * 14.1);
}

}  // namespace
}  // namespace bellwether
