#include "common/fast_hash.h"

#include <bit>
#include <cstring>
#include <initializer_list>

namespace bellwether {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie");

constexpr size_t kWord = 8;
// Independent sums, so that multiplications follow each other without waiting.
constexpr int kLanes = 4;
// Odd, bits evenly spread: the fractions of the square roots of 2, 3, 5 and 7.
constexpr uint64_t kFactors[kLanes] = {0x6a09e667f3bcc909, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                       0xa54ff53a5f1d36f1};

uint64_t Word(const std::byte* data) {
  uint64_t word;
  std::memcpy(&word, data, kWord);
  return word;
}

// A bijection of `lane`, and of `word`. The shift brings the high bits down, which multiplication alone
// leaves where they are: a change of one word must not be undone by one of the next.
uint64_t Step(uint64_t lane, uint64_t word, uint64_t factor) {
  lane ^= word;
  lane ^= lane >> 32;
  return std::rotl(lane * factor, 31);
}

uint64_t Finish(uint64_t value) {
  value = (value ^ (value >> 32)) * kFactors[0];
  value = (value ^ (value >> 29)) * kFactors[1];
  return value ^ (value >> 32);
}

}  // namespace

uint64_t FastHash(absl::Span<const std::byte> data, uint64_t seed) {
  uint64_t a = seed, b = ~seed, c = data.size(), d = seed + data.size();
  const std::byte* at = data.data();
  size_t left = data.size();
  for (; left >= kLanes * kWord; left -= kLanes * kWord, at += kLanes * kWord) {
    a = Step(a, Word(at), kFactors[0]);
    b = Step(b, Word(at + kWord), kFactors[1]);
    c = Step(c, Word(at + 2 * kWord), kFactors[2]);
    d = Step(d, Word(at + 3 * kWord), kFactors[3]);
  }
  uint64_t hash = seed;
  for (const uint64_t lane : {a, b, c, d}) hash = Step(hash, lane, kFactors[3]);
  for (; left >= kWord; left -= kWord, at += kWord) hash = Step(hash, Word(at), kFactors[0]);
  uint64_t last = 0;
  if (left > 0) std::memcpy(&last, at, left);
  return Finish(Step(Step(hash, last, kFactors[1]), data.size(), kFactors[2]));
}

}  // namespace bellwether
