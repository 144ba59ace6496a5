#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

// What one step of a tensor core computes, to the bit: bf16 x bf16 -> fp32 over 16 values of k. This is what
// the emulator calls and what a real card is compared with.
//
// Seventeen terms, the 16 products and the accumulator. A finite value is s * 2^e with 1 <= |s| < 2;
// subnormals keep the least exponent of their format, with |s| < 1. A product has the significand s_a * s_b,
// which is not normalised, and the exponent e_a + e_b. Every term is cut toward zero to a multiple of 2^(E -
// fraction_bits), E being the largest exponent of the terms; their sum is exact, and is cut toward zero to
// fp32. So the order of the terms does not matter, and zeros change nothing (but hold E up to zero_exponent).
// Subnormal results are kept, what is beyond fp32 becomes infinity, a sum of zero is +0, and every NaN is
// 0x7fffffff.

namespace bellwether::gpu {

// GPUs with the same class give the same bits.
struct TensorCoreClass {
  int fraction_bits;  // kept below the largest exponent; 24 or 25
  int zero_exponent;  // of a term that is zero
  int step;           // values of k summed at once; a k16 step takes 16 / step of them, one after the other
};
inline constexpr TensorCoreClass kHopperTensorCore{25, -133, 16};  // Blackwell too
inline constexpr TensorCoreClass kAmpereTensorCore{24, -132, 8};   // Ada too

// Of the GPUs that compute as `level` (gpu::DeviceInfo::numeric_class).
inline const TensorCoreClass& TensorCoreOf(absl::string_view level) {
  return level == "cuda_sm80" ? kAmpereTensorCore : kHopperTensorCore;
}

// c + the products of a[i] and b[i], which are bf16. The definition, slow.
float TensorCoreDot(const TensorCoreClass& numerics, const uint16_t (&a)[16], const uint16_t (&b)[16],
                    float c);

// The 16 x 16 operand A, taken apart for MultiplyAdd.
class TensorCoreRows {
 public:
  // pairs[row][i]: the bf16 values of k = 2 i (low half) and 2 i + 1.
  explicit TensorCoreRows(const uint32_t (&pairs)[16][8]);

  // c += A B, where pairs_b[i][column] holds B's rows 2 i (low half) and 2 i + 1; c[row][column]. The bits of
  // TensorCoreDot, at less than half a microsecond where there is AVX2.
  void MultiplyAdd(const TensorCoreClass& numerics, const uint32_t (&pairs_b)[8][8], float (&c)[16][8]) const;

 private:
  uint32_t pairs_[16][8];
  // For vectors, if all values are finite: of each row the k that are even, then the odd ones.
  bool vectors_ = false;
  alignas(32) int32_t significands_[16][16];
  alignas(32) int32_t exponents_[16][16];
};

}  // namespace bellwether::gpu
