#pragma once

#include <bit>
#include <cstdint>

namespace bellwether {

// e^x for x <= 0 in float, to about 2 units in the last place; 0 below -87, NaN for NaN. Cheap and
// branch-free, so that the compiler can run it over a whole vocabulary in vectors; the bits are the same
// however it does so.
inline float ExpNonPositive(float x) {
  constexpr float kShift = 12582912.0f;     // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693359375f;  // few bits, so that k * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  const float clamped = x > -87.0f ? x : -87.0f;
  const float k = (clamped * 1.44269504f + kShift) - kShift;
  const float r = (clamped - k * kLn2High) - k * kLn2Low;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  const float value = 1.0f + (r + r * r * series);
  const float scale = std::bit_cast<float>((static_cast<int32_t>(k) + 127) << 23);
  const float zero_or_nan = x - clamped;
  return x < -87.0f ? 0.0f : value * scale + zero_or_nan;
}

}  // namespace bellwether
