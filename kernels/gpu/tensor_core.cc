#include "kernels/gpu/tensor_core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstring>

namespace bellwether::gpu {
namespace {

constexpr uint32_t kNan = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;
// Of zeros: far below every other exponent, so that they never are the largest.
constexpr int kNoExponent = -4096;

// significand * 2^(exponent - fraction), finite.
struct Term {
  int64_t significand;  // with its sign
  int exponent;
};

// `bits` of fp32 or of bf16 in the upper half; 23 fraction bits.
Term TermOf(uint32_t bits) {
  const int field = static_cast<int>(bits >> 23 & 255);
  const int64_t magnitude = (bits & 0x7fffffu) | (field != 0 ? 0x800000u : 0u);
  return {bits >> 31 != 0 ? -magnitude : magnitude, std::max(field, 1) - 127};
}

bool IsFinite(uint32_t bits) { return (bits & kInfinity) != kInfinity; }

// sum * 2^(exponent - fraction_bits), cut toward zero.
float CutToFloat(int64_t sum, int exponent, int fraction_bits) {
  if (sum == 0) return 0.0f;
  const uint32_t sign = sum < 0 ? 0x80000000u : 0u;
  uint64_t magnitude = sum < 0 ? -sum : sum;
  const int top = std::bit_width(magnitude) - 1;
  exponent += top - fraction_bits;
  if (exponent > 127) return std::bit_cast<float>(sign | kInfinity);
  magnitude = top > 23 ? magnitude >> (top - 23) : magnitude << (23 - top);
  if (exponent < -126)
    return std::bit_cast<float>(sign | static_cast<uint32_t>(magnitude >> std::min(63, -126 - exponent)));
  // The leading one adds 1 to the exponent field.
  return std::bit_cast<float>(
      sign | ((static_cast<uint32_t>(exponent + 126) << 23) + static_cast<uint32_t>(magnitude)));
}

// One step of up to 16 products, all values finite. a and b as fp32 bits.
float SumFinite(const TensorCoreClass& numerics, const uint32_t* a, const uint32_t* b, float c) {
  const int count = numerics.step;
  Term terms[17];
  int largest = numerics.zero_exponent;
  for (int i = 0; i <= count; ++i) {
    Term& term = terms[i];
    if (i < count) {
      const Term x = TermOf(a[i]);
      const Term y = TermOf(b[i]);
      // 7 fraction bits each, brought to the accumulator's 23.
      term = {(x.significand >> 16) * (y.significand >> 16) * 512, x.exponent + y.exponent};
    } else {
      term = TermOf(std::bit_cast<uint32_t>(c));
    }
    if (term.significand != 0) largest = std::max(largest, term.exponent);
  }
  int64_t sum = 0;
  for (int i = 0; i <= count; ++i) {
    const int shift = std::min(63, largest - terms[i].exponent);
    // Division cuts toward zero, a shift would not.
    const int64_t scaled = terms[i].significand * (int64_t{1} << (numerics.fraction_bits - 23));
    if (terms[i].significand != 0) sum += shift == 63 ? 0 : scaled / (int64_t{1} << shift);
  }
  return CutToFloat(sum, largest, numerics.fraction_bits);
}

// The sum of terms of which one is infinite or NaN.
float SumSpecial(const uint32_t* a, const uint32_t* b, int count, float c) {
  float sum = IsFinite(std::bit_cast<uint32_t>(c)) ? 0.0f : c;
  for (int i = 0; i < count; ++i) {
    // Finite products may overflow in fp32, but only become infinite at the end.
    if (!IsFinite(a[i]) || !IsFinite(b[i])) sum += std::bit_cast<float>(a[i]) * std::bit_cast<float>(b[i]);
  }
  return sum != sum ? std::bit_cast<float>(kNan) : sum;
}

}  // namespace

float TensorCoreDot(const TensorCoreClass& numerics, const uint16_t (&a)[16], const uint16_t (&b)[16],
                    float c) {
  uint32_t x[16], y[16];
  for (int i = 0; i < 16; ++i) {
    x[i] = uint32_t{a[i]} << 16;
    y[i] = uint32_t{b[i]} << 16;
  }
  for (int begin = 0; begin < 16; begin += numerics.step) {
    const uint32_t* step_x = x + begin;
    const uint32_t* step_y = y + begin;
    const bool finite = IsFinite(std::bit_cast<uint32_t>(c)) &&
                        std::all_of(step_x, step_x + numerics.step, IsFinite) &&
                        std::all_of(step_y, step_y + numerics.step, IsFinite);
    c = finite ? SumFinite(numerics, step_x, step_y, c) : SumSpecial(step_x, step_y, numerics.step, c);
  }
  return c;
}

// ---- The same for a whole tile

namespace {

void MultiplyAddPlainly(const TensorCoreClass& numerics, const uint32_t (&pairs_a)[8],
                        const uint32_t (&pairs_b)[8][8], float (&c)[8]) {
  uint16_t a[16];
  std::memcpy(a, pairs_a, sizeof(a));
  for (int column = 0; column < 8; ++column) {
    uint16_t b[16];
    for (int i = 0; i < 8; ++i) std::memcpy(b + 2 * i, &pairs_b[i][column], 4);
    c[column] = TensorCoreDot(numerics, a, b, c[column]);
  }
}

// Of the bits that lie between the unit of a product of two bf16 and that of the sum (Hopper's 25 - 14), A's
// significands take 7 and B's the rest: so both fit a 16-bit multiplier.
constexpr int kShiftOfA = 7;

}  // namespace

#if defined(__x86_64__)
#define BW_AVX2 __attribute__((target("avx2")))

namespace {

const bool kHaveAvx2 = __builtin_cpu_supports("avx2");

// Takes one half of eight pairs apart: significands, shifted and with their sign, in the low 16 bits of each
// word (zero above), and exponents. Returns -1 where a value is not finite.
BW_AVX2 inline __m256i SplitHalf(__m256i pairs, bool high, int shift, __m256i& significands,
                                 __m256i& exponents) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i bits =
      high ? _mm256_srli_epi32(pairs, 16) : _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
  const __m256i field = _mm256_and_si256(_mm256_srli_epi32(bits, 7), _mm256_set1_epi32(255));
  const __m256i hidden = _mm256_andnot_si256(_mm256_cmpeq_epi32(field, zero), _mm256_set1_epi32(128));
  const __m256i magnitude = _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(127)), hidden);
  const __m256i exponent =
      _mm256_sub_epi32(_mm256_max_epi32(field, _mm256_set1_epi32(1)), _mm256_set1_epi32(127));
  exponents =
      _mm256_blendv_epi8(exponent, _mm256_set1_epi32(kNoExponent), _mm256_cmpeq_epi32(magnitude, zero));
  const __m256i scaled = _mm256_sll_epi32(magnitude, _mm_cvtsi32_si128(shift));
  // Negative where bit 15 is set; never zero, of which vpsignd would make zero.
  const __m256i sign = _mm256_or_si256(_mm256_slli_epi32(bits, 16), _mm256_set1_epi32(1));
  significands = _mm256_and_si256(_mm256_sign_epi32(scaled, sign), _mm256_set1_epi32(0xffff));
  return _mm256_cmpeq_epi32(field, _mm256_set1_epi32(255));
}

// Eight columns of B, one vector for each k: even ones, then odd ones.
struct Columns {
  __m256i significands[16];
  __m256i exponents[16];
};

// False if a value is not finite.
BW_AVX2 bool SplitColumns(const uint32_t (&pairs)[8][8], int shift, Columns& columns) {
  __m256i special = _mm256_setzero_si256();
  for (int k = 0; k < 16; ++k) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs[k % 8]));
    special = _mm256_or_si256(special,
                              SplitHalf(words, k >= 8, shift, columns.significands[k], columns.exponents[k]));
  }
  return _mm256_testz_si256(special, special) != 0;
}

BW_AVX2 bool SplitRows(const uint32_t (&pairs)[16][8], int32_t (&significands)[16][16],
                       int32_t (&exponents)[16][16]) {
  __m256i special = _mm256_setzero_si256();
  for (int row = 0; row < 16; ++row) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs[row]));
    for (int half = 0; half < 2; ++half) {
      __m256i significand, exponent;
      special = _mm256_or_si256(special, SplitHalf(words, half != 0, kShiftOfA, significand, exponent));
      _mm256_store_si256(reinterpret_cast<__m256i*>(significands[row] + 8 * half), significand);
      _mm256_store_si256(reinterpret_cast<__m256i*>(exponents[row] + 8 * half), exponent);
    }
  }
  return _mm256_testz_si256(special, special) != 0;
}

// CutToFloat of eight sums: `magnitude` is unsigned, `sign` has the sign bits.
BW_AVX2 __m256i CutToFloats(__m256i magnitude, __m256i sign, __m256i exponent, int fraction_bits) {
  const __m256i zero = _mm256_setzero_si256();
  // The place of the leading one by way of a conversion that is exact: of the upper 24 bits where there are
  // more.
  const __m256i upper = _mm256_srli_epi32(magnitude, 8);
  const __m256i is_long = _mm256_cmpgt_epi32(upper, _mm256_set1_epi32(0xffff));
  const __m256i shortened = _mm256_blendv_epi8(magnitude, upper, is_long);
  const __m256i converted = _mm256_castps_si256(_mm256_cvtepi32_ps(shortened));
  const __m256i top =
      _mm256_add_epi32(_mm256_sub_epi32(_mm256_srli_epi32(converted, 23), _mm256_set1_epi32(127)),
                       _mm256_and_si256(is_long, _mm256_set1_epi32(8)));
  // Negative counts shift everything out, so one of the two is zero, or they are equal.
  const __m256i down = _mm256_sub_epi32(top, _mm256_set1_epi32(23));
  const __m256i significand = _mm256_or_si256(_mm256_srlv_epi32(magnitude, down),
                                              _mm256_sllv_epi32(magnitude, _mm256_sub_epi32(zero, down)));
  const __m256i result_exponent =
      _mm256_add_epi32(exponent, _mm256_sub_epi32(top, _mm256_set1_epi32(fraction_bits)));
  const __m256i normal = _mm256_add_epi32(
      _mm256_slli_epi32(_mm256_add_epi32(result_exponent, _mm256_set1_epi32(126)), 23), significand);
  const __m256i below = _mm256_sub_epi32(_mm256_set1_epi32(-126), result_exponent);
  const __m256i subnormal = _mm256_srlv_epi32(significand, below);
  __m256i bits = _mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(below, zero));
  const __m256i beyond = _mm256_cmpgt_epi32(result_exponent, _mm256_set1_epi32(127));
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(kInfinity), beyond);
  bits = _mm256_or_si256(bits, sign);
  return _mm256_andnot_si256(_mm256_cmpeq_epi32(magnitude, zero), bits);
}

// SumFinite of one row with eight columns, for the k in [0, 16) whose pair, k % 8, is in [begin, end).
BW_AVX2 __m256i SumRow(const TensorCoreClass& numerics, const int32_t* significands, const int32_t* exponents,
                       const Columns& columns, int begin, int end, __m256i c) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i field = _mm256_and_si256(_mm256_srli_epi32(c, 23), _mm256_set1_epi32(255));
  const __m256i hidden = _mm256_andnot_si256(_mm256_cmpeq_epi32(field, zero), _mm256_set1_epi32(0x800000));
  const __m256i magnitude_c = _mm256_or_si256(_mm256_and_si256(c, _mm256_set1_epi32(0x7fffff)), hidden);
  const __m256i exponent_c =
      _mm256_sub_epi32(_mm256_max_epi32(field, _mm256_set1_epi32(1)), _mm256_set1_epi32(127));
  __m256i largest = _mm256_blendv_epi8(exponent_c, _mm256_set1_epi32(numerics.zero_exponent),
                                       _mm256_cmpeq_epi32(magnitude_c, zero));
  for (int half = 0; half < 16; half += 8) {
    for (int k = half + begin; k < half + end; ++k) {
      largest =
          _mm256_max_epi32(largest, _mm256_add_epi32(_mm256_set1_epi32(exponents[k]), columns.exponents[k]));
    }
  }
  __m256i sum = zero;
  for (int half = 0; half < 16; half += 8) {
    for (int k = half + begin; k < half + end; ++k) {
      const __m256i exponent = _mm256_add_epi32(_mm256_set1_epi32(exponents[k]), columns.exponents[k]);
      const __m256i product = _mm256_madd_epi16(_mm256_set1_epi32(significands[k]), columns.significands[k]);
      const __m256i cut = _mm256_srlv_epi32(_mm256_abs_epi32(product), _mm256_sub_epi32(largest, exponent));
      sum = _mm256_add_epi32(sum, _mm256_sign_epi32(cut, product));
    }
  }
  // Sixteen products fit 32 bits; with the accumulator they may just not: then the sign is that of both.
  const __m256i scaled_c = _mm256_sll_epi32(magnitude_c, _mm_cvtsi32_si128(numerics.fraction_bits - 23));
  const __m256i cut_c = _mm256_srlv_epi32(scaled_c, _mm256_sub_epi32(largest, exponent_c));
  const __m256i term_c = _mm256_sign_epi32(cut_c, _mm256_or_si256(c, _mm256_set1_epi32(1)));
  const __m256i total = _mm256_add_epi32(sum, term_c);
  const __m256i overflowed = _mm256_and_si256(_mm256_xor_si256(sum, total), _mm256_xor_si256(term_c, total));
  const __m256i negative = _mm256_srai_epi32(_mm256_xor_si256(total, overflowed), 31);
  const __m256i magnitude = _mm256_sub_epi32(_mm256_xor_si256(total, negative), negative);
  return CutToFloats(magnitude, _mm256_slli_epi32(negative, 31), largest, numerics.fraction_bits);
}

BW_AVX2 bool AllFinite(__m256i bits) {
  const __m256i infinity = _mm256_set1_epi32(kInfinity);
  const __m256i special = _mm256_cmpeq_epi32(_mm256_and_si256(bits, infinity), infinity);
  return _mm256_testz_si256(special, special) != 0;
}

// False, with the row unchanged, if it needs the plain form.
BW_AVX2 bool MultiplyAddRow(const TensorCoreClass& numerics, const int32_t* significands,
                            const int32_t* exponents, const Columns& columns, float (&c)[8]) {
  __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(c));
  const int pairs = numerics.step / 2;
  for (int begin = 0; begin < 8; begin += pairs) {
    if (!AllFinite(bits)) return false;
    bits = SumRow(numerics, significands, exponents, columns, begin, begin + pairs, bits);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), bits);
  return true;
}

}  // namespace

TensorCoreRows::TensorCoreRows(const uint32_t (&pairs)[16][8]) {
  std::memcpy(pairs_, pairs, sizeof(pairs_));
  vectors_ = kHaveAvx2 && SplitRows(pairs, significands_, exponents_);
}

void TensorCoreRows::MultiplyAdd(const TensorCoreClass& numerics, const uint32_t (&pairs_b)[8][8],
                                 float (&c)[16][8]) const {
  Columns columns;
  const bool vectors = vectors_ && SplitColumns(pairs_b, numerics.fraction_bits - 14 - kShiftOfA, columns);
  for (int row = 0; row < 16; ++row) {
    if (!vectors || !MultiplyAddRow(numerics, significands_[row], exponents_[row], columns, c[row]))
      MultiplyAddPlainly(numerics, pairs_[row], pairs_b, c[row]);
  }
}

#else

TensorCoreRows::TensorCoreRows(const uint32_t (&pairs)[16][8]) { std::memcpy(pairs_, pairs, sizeof(pairs_)); }

void TensorCoreRows::MultiplyAdd(const TensorCoreClass& numerics, const uint32_t (&pairs_b)[8][8],
                                 float (&c)[16][8]) const {
  for (int row = 0; row < 16; ++row) MultiplyAddPlainly(numerics, pairs_[row], pairs_b, c[row]);
}

#endif

}  // namespace bellwether::gpu
