#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

// Four floats at a time, and the exponential that the portable level uses. Every lane computes what a scalar
// would, so results do not depend on which lane a value sits in.

namespace bellwether::kernels::portable {

using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));
using U4 = uint32_t __attribute__((vector_size(16)));
using U16x4 = uint16_t __attribute__((vector_size(8)));
inline constexpr int kLanes = 4;

inline F4 Broadcast(float x) { return F4{x, x, x, x}; }
inline F4 Load4(const float* at) {
  F4 value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
inline void Store4(F4 value, float* at) { std::memcpy(at, &value, sizeof(value)); }
// The first `count` < 4 lanes; the others are zero.
inline F4 LoadPart(const float* at, int64_t count) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = at[i];
  return Load4(lanes);
}
inline void StorePart(F4 value, float* at, int64_t count) {
  for (int64_t i = 0; i < count; ++i) at[i] = value[i];
}

inline F4 Max(F4 a, F4 b) { return a > b ? a : b; }
inline float LargestLane(F4 x) {
  const float low = x[0] > x[1] ? x[0] : x[1], high = x[2] > x[3] ? x[2] : x[3];
  return low > high ? low : high;
}
inline float SumOfLanes(F4 x) { return (x[0] + x[1]) + (x[2] + x[3]); }

// fp16 and bf16 bits, zero-extended.
inline U4 LoadHalves(const std::byte* at) {
  U16x4 bits;
  std::memcpy(&bits, at, sizeof(bits));
  return __builtin_convertvector(bits, U4);
}
inline F4 F32FromBF16Bits(U4 bits) { return std::bit_cast<F4>(bits << 16); }
inline F4 F32FromF16Bits(U4 bits) {
  const U4 magnitude = bits & 0x7fff;
  // As a float's bits the half is 2^112 too small; the product is exact, for subnormals too.
  const F4 finite = std::bit_cast<F4>(magnitude << 13) * Broadcast(0x1p112f);
  const U4 special = std::bit_cast<U4>(magnitude > 0x7bff) & 0x7f800000;
  return std::bit_cast<F4>(std::bit_cast<U4>(finite) | special | (bits & 0x8000) << 16);
}

// e^x within 2 units in the last place (of the smallest normal number, below it). Exp4(0) is 1,
// Exp4(-infinity) is 0, NaN stays NaN.
inline F4 Exp4(F4 x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer, held in the low bits.
  const F4 magic = Broadcast(0x1.8p23f);
  const F4 shifted = x * Broadcast(0x1.715476p0f) + magic;
  const F4 n = shifted - magic;
  const F4 r = (x - n * Broadcast(0x1.62e4p-1f)) - n * Broadcast(0x1.7f7d1cp-20f);
  // The Taylor series up to r^7 / 7!, whose remainder is below 6e-9.
  F4 p = Broadcast(1.0f / 5040);
  p = p * r + Broadcast(1.0f / 720);
  p = p * r + Broadcast(1.0f / 120);
  p = p * r + Broadcast(1.0f / 24);
  p = p * r + Broadcast(1.0f / 6);
  p = p * r + Broadcast(0.5f);
  p = p * r + Broadcast(1.0f);
  p = p * r + Broadcast(1.0f);
  // 2^n in two factors: n runs from -150 to 128, further than one exponent.
  const I4 integer = std::bit_cast<I4>(shifted) - std::bit_cast<I4>(magic);
  const I4 half = integer >> 1;
  const F4 scale_a = std::bit_cast<F4>((std::bit_cast<U4>(half) + 127u) << 23);
  const F4 scale_b = std::bit_cast<F4>((std::bit_cast<U4>(integer - half) + 127u) << 23);
  const F4 result = p * scale_a * scale_b;
  const F4 infinity = Broadcast(std::numeric_limits<float>::infinity());
  const F4 not_large = x > Broadcast(88.73f) ? infinity : result;
  return x < Broadcast(-104.0f) ? Broadcast(0.0f) : not_large;
}

}  // namespace bellwether::kernels::portable
