// Sixteen floats as two AVX registers; see avx512_vector.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#define BW_LEVEL avx2
#define BW_SIMD __attribute__((target("avx2,fma,f16c")))
#define BW_SIMD_INLINE BW_SIMD inline __attribute__((always_inline))

#if defined(__clang__)
#define BW_UNROLL _Pragma("clang loop unroll(full)")
#define BW_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define BW_UNROLL _Pragma("GCC unroll 16")
#define BW_NO_UNROLL _Pragma("GCC unroll 1")
#endif

namespace bellwether::kernels::avx2 {

inline constexpr int kAttentionQueries = 2;
inline constexpr int kAttentionSums = 4;

struct Vector {
  __m256 low, high;
};

// All ones in the first `count` of 8 lanes.
BW_SIMD_INLINE __m256i FirstOfEight(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

BW_SIMD_INLINE Vector Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
BW_SIMD_INLINE Vector Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
BW_SIMD_INLINE Vector Iota() {
  return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}
BW_SIMD_INLINE Vector Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
BW_SIMD_INLINE void Store(Vector a, float* p) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
BW_SIMD_INLINE Vector LoadFirst(const float* p, int64_t count) {
  if (count >= 16) return Load(p);  // masked access is slow on some processors
  return {_mm256_maskload_ps(p, FirstOfEight(count)), _mm256_maskload_ps(p + 8, FirstOfEight(count - 8))};
}
BW_SIMD_INLINE void StoreFirst(Vector a, float* p, int64_t count) {
  if (count >= 16) return Store(a, p);
  _mm256_maskstore_ps(p, FirstOfEight(count), a.low);
  _mm256_maskstore_ps(p + 8, FirstOfEight(count - 8), a.high);
}
BW_SIMD_INLINE Vector Select(int64_t count, Vector a, Vector b) {
  return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(FirstOfEight(count))),
          _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(FirstOfEight(count - 8)))};
}

BW_SIMD_INLINE Vector Add(Vector a, Vector b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector Subtract(Vector a, Vector b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector Multiply(Vector a, Vector b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector Divide(Vector a, Vector b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector MultiplyAdd(Vector a, Vector b, Vector c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
BW_SIMD_INLINE Vector NegativeMultiplyAdd(Vector a, Vector b, Vector c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
BW_SIMD_INLINE Vector Max(Vector a, Vector b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector Min(Vector a, Vector b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
BW_SIMD_INLINE Vector RoundToEven(Vector a) {
  return {_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
BW_SIMD_INLINE __m256 TimesPowerOfTwo(__m256 a, __m256 n) {
  // In two steps, so that results below the normal range are rounded once and right.
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
// a * 2^n for whole n, |n| <= 250.
BW_SIMD_INLINE Vector TimesPowerOfTwo(Vector a, Vector n) {
  return {TimesPowerOfTwo(a.low, n.low), TimesPowerOfTwo(a.high, n.high)};
}

BW_SIMD_INLINE float SumOfLanes(Vector a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
BW_SIMD_INLINE float MaxOfLanes(Vector a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

struct DoubleVector {
  __m256d part[4];
};
BW_SIMD_INLINE DoubleVector DoubleZero() {
  return {{_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()}};
}
BW_SIMD_INLINE DoubleVector AddTo(DoubleVector sums, Vector a) {
  return {{_mm256_add_pd(sums.part[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a.low))),
           _mm256_add_pd(sums.part[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a.low, 1))),
           _mm256_add_pd(sums.part[2], _mm256_cvtps_pd(_mm256_castps256_ps128(a.high))),
           _mm256_add_pd(sums.part[3], _mm256_cvtps_pd(_mm256_extractf128_ps(a.high, 1)))}};
}
BW_SIMD_INLINE double SumOfLanes(DoubleVector a) {
  const __m256d four =
      _mm256_add_pd(_mm256_add_pd(a.part[0], a.part[2]), _mm256_add_pd(a.part[1], a.part[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

BW_SIMD_INLINE __m256 EightFromBF16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
BW_SIMD_INLINE Vector LoadBF16(const void* p) {
  const auto* halves = static_cast<const __m128i*>(p);
  return {EightFromBF16(_mm_loadu_si128(halves)), EightFromBF16(_mm_loadu_si128(halves + 1))};
}
BW_SIMD_INLINE Vector LoadFirstBF16(const void* p, int64_t count) {
  alignas(32) uint16_t first[16] = {};
  std::memcpy(first, p, count * sizeof(uint16_t));
  return LoadBF16(first);
}
BW_SIMD_INLINE Vector LoadF16(const void* p) {
  const auto* halves = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
BW_SIMD_INLINE Vector LoadFirstF16(const void* p, int64_t count) {
  alignas(32) uint16_t first[16] = {};
  std::memcpy(first, p, count * sizeof(uint16_t));
  return LoadF16(first);
}
BW_SIMD_INLINE __m256 WidenHalfOfEightPairs(__m256i pairs, int part) {
  return _mm256_castsi256_ps(part == 0 ? _mm256_slli_epi32(pairs, 16)
                                       : _mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
}
BW_SIMD_INLINE Vector WidenHalfOfPairs(const void* p, int part) {
  const auto* halves = static_cast<const __m256i*>(p);
  return {WidenHalfOfEightPairs(_mm256_loadu_si256(halves), part),
          WidenHalfOfEightPairs(_mm256_loadu_si256(halves + 1), part)};
}
BW_SIMD_INLINE __m256i BF16Bits(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
BW_SIMD_INLINE void StoreBF16(Vector a, uint16_t* p) {
  // The pack interleaves 128-bit halves; the permutation puts them in order.
  const __m256i packed = _mm256_packus_epi32(BF16Bits(a.low), BF16Bits(a.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
BW_SIMD_INLINE void StoreF16(Vector a, uint16_t* p) {
  auto* halves = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(halves, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

BW_SIMD_INLINE __m256i MagnitudeBits(__m256 a) {
  return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fffffff));
}
BW_SIMD_INLINE float LargestMagnitude(Vector a, Vector b) {
  const __m256i of_a = _mm256_max_epu32(MagnitudeBits(a.low), MagnitudeBits(a.high));
  const __m256i of_b = _mm256_max_epu32(MagnitudeBits(b.low), MagnitudeBits(b.high));
  const __m256i eight = _mm256_max_epu32(of_a, of_b);
  const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xb1))));
}
BW_SIMD_INLINE __m256i WithinInt8(__m256 a) {
  const __m256i q = _mm256_cvtps_epi32(a);
  return _mm256_max_epi32(_mm256_min_epi32(q, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
}
BW_SIMD_INLINE int32_t StoreInt8(Vector a, int8_t* p) {
  const __m256i low = WithinInt8(a.low), high = WithinInt8(a.high);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  const __m256i eight = _mm256_add_epi32(low, high);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

}  // namespace bellwether::kernels::avx2
