#include "common/fast_hash.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

uint64_t Hash(const std::string& text, uint64_t seed = 0) {
  return FastHash(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()), seed);
}

TEST(FastHashTest, IsTheSameEverywhere) {
  EXPECT_EQ(Hash(""), Hash(""));
  EXPECT_EQ(Hash("bellwether"), 0x7aed066c0b803d7cu);
  EXPECT_EQ(Hash(std::string(1000, 'x'), 7), 0xa2143d67e1cb8d41u);
}

TEST(FastHashTest, EveryBitTheLengthAndTheSeedCount) {
  std::set<uint64_t> seen;
  size_t count = 0;
  const auto add = [&](uint64_t hash) {
    seen.insert(hash);
    ++count;
  };
  for (const size_t size : {1, 7, 8, 9, 31, 32, 33, 100}) {
    const std::string zeros(size, '\0');
    for (uint64_t seed = 0; seed < 10; ++seed) add(Hash(zeros, seed));
    for (size_t bit = 0; bit < 8 * size; ++bit) {
      std::string flipped = zeros;
      flipped[bit / 8] = static_cast<char>(1 << bit % 8);
      add(Hash(flipped));
    }
  }
  EXPECT_EQ(seen.size(), count);
}

// Rows of a tensor are told apart by the seed, and their hashes are added: half of the bits must change.
TEST(FastHashTest, ASmallChangeChangesHalfOfTheBits) {
  const std::string text(64, 'a');
  int changed = 0, cases = 0;
  for (size_t i = 0; i < text.size(); ++i, ++cases) {
    std::string other = text;
    other[i] ^= 1;
    changed += __builtin_popcountll(Hash(text) ^ Hash(other));
  }
  EXPECT_NEAR(static_cast<double>(changed) / cases, 32, 3);
}

}  // namespace
}  // namespace bellwether
