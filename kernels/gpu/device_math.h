#pragma once

// Elementary functions of the GPU's numeric path: fp32, explicit Fma, one fixed order, so that the emulator
// and every GPU give the same bits. Errors are within 3 units in the last place where the result is a normal
// number.

#include "kernels/gpu/simt.h"

namespace bellwether::gpu {

// e^x: 0 below about -87.3 (no subnormal results), infinity above about 88.7, NaN for NaN.
BW_DEVICE float Exp(float x) {
  if (x > 88.72283f) return BitsFloat(0x7f800000u);
  if (x < -87.33654f) return 0.0f;
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding and taking away 1.5 * 2^23 rounds to an integer.
  const float shifted = Fma(x, 1.44269504f, 12582912.0f);
  const float n = shifted - 12582912.0f;
  float r = Fma(n, -0.693145752f, x);
  r = Fma(n, -1.42860677e-6f, r);
  float p = 1.38888889e-3f;  // Taylor to r^6
  p = Fma(p, r, 8.33333333e-3f);
  p = Fma(p, r, 4.16666667e-2f);
  p = Fma(p, r, 1.66666667e-1f);
  p = Fma(p, r, 0.5f);
  p = Fma(p, r, 1.0f);
  p = Fma(p, r, 1.0f);
  // times 2^n in two steps: n may be 128, and -127 would leave the normal range.
  const int exponent = static_cast<int>(n);
  const int half = exponent / 2;
  p *= BitsFloat(static_cast<uint32_t>(half + 127) << 23);
  return p * BitsFloat(static_cast<uint32_t>(exponent - half + 127) << 23);
}

// tanh(x) = sign(x) (1 - 2 / (e^2|x| + 1)); a polynomial near 0, where that would cancel.
BW_DEVICE float Tanh(float x) {
  const float magnitude = x < 0 ? -x : x;
  if (magnitude < 0.25f) {
    const float s = x * x;
    float p = -8.86323553e-3f;  // -1382/155925
    p = Fma(p, s, 2.18694885e-2f);
    p = Fma(p, s, -5.39682540e-2f);
    p = Fma(p, s, 1.33333333e-1f);
    p = Fma(p, s, -3.33333333e-1f);
    return Fma(p * s, x, x);
  }
  if (!(magnitude < 10.0f)) {  // 1 in fp32; NaN stays NaN
    if (magnitude != magnitude) return x;
    return x < 0 ? -1.0f : 1.0f;
  }
  const float t = 1.0f - 2.0f / (Exp(2.0f * magnitude) + 1.0f);
  return x < 0 ? -t : t;
}

// x / (1 + e^-x)
BW_DEVICE float Silu(float x) { return x / (1.0f + Exp(-x)); }

// x/2 (1 + tanh(0.79788456 x (1 + 0.044715 x^2)))
BW_DEVICE float Gelu(float x) {
  const float inner = 0.79788456f * x * Fma(0.044715f * x, x, 1.0f);
  return 0.5f * x * (1.0f + Tanh(inner));
}

BW_DEVICE float Max(float a, float b) { return a > b ? a : b; }

constexpr float kInfinity = __builtin_huge_valf();

}  // namespace bellwether::gpu
