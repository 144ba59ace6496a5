// Sixteen floats as one AVX-512 register: what the avx_*_inl.h files need to know of the level. avx2_vector.h
// has the same functions, with the same results to the last bit.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 warns of its own _mm512_undefined_ps()
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef BW_LEVEL  // avx512_bf16.cc has its own
#define BW_LEVEL avx512
#define BW_SIMD __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))
#endif
#define BW_SIMD_INLINE BW_SIMD inline __attribute__((always_inline))

#if defined(__clang__)
#define BW_UNROLL _Pragma("clang loop unroll(full)")
#define BW_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define BW_UNROLL _Pragma("GCC unroll 16")
#define BW_NO_UNROLL _Pragma("GCC unroll 1")
#endif

namespace bellwether::kernels::BW_LEVEL {

// Query heads that attention takes through the KV cache together, and vectors of sums it keeps in registers.
inline constexpr int kAttentionQueries = 8;
inline constexpr int kAttentionSums = 16;

struct Vector {
  __m512 v;
};

BW_SIMD_INLINE __mmask16 FirstLanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

BW_SIMD_INLINE Vector Zero() { return {_mm512_setzero_ps()}; }
BW_SIMD_INLINE Vector Broadcast(float x) { return {_mm512_set1_ps(x)}; }
BW_SIMD_INLINE Vector Iota() {
  return {_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
BW_SIMD_INLINE Vector Load(const float* p) { return {_mm512_loadu_ps(p)}; }
BW_SIMD_INLINE void Store(Vector a, float* p) { _mm512_storeu_ps(p, a.v); }
// The first `count` <= 16 lanes; others load as zero and are not touched in memory.
BW_SIMD_INLINE Vector LoadFirst(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(FirstLanes(count), p)};
}
BW_SIMD_INLINE void StoreFirst(Vector a, float* p, int64_t count) {
  _mm512_mask_storeu_ps(p, FirstLanes(count), a.v);
}
// `a` in the first `count` lanes, `b` in the others.
BW_SIMD_INLINE Vector Select(int64_t count, Vector a, Vector b) {
  return {_mm512_mask_blend_ps(FirstLanes(count), b.v, a.v)};
}

BW_SIMD_INLINE Vector Add(Vector a, Vector b) { return {_mm512_add_ps(a.v, b.v)}; }
BW_SIMD_INLINE Vector Subtract(Vector a, Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }
BW_SIMD_INLINE Vector Multiply(Vector a, Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }
BW_SIMD_INLINE Vector Divide(Vector a, Vector b) { return {_mm512_div_ps(a.v, b.v)}; }
// a * b + c, rounded once.
BW_SIMD_INLINE Vector MultiplyAdd(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// c - a * b, rounded once.
BW_SIMD_INLINE Vector NegativeMultiplyAdd(Vector a, Vector b, Vector c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
// NaN if `b` is.
BW_SIMD_INLINE Vector Max(Vector a, Vector b) { return {_mm512_max_ps(a.v, b.v)}; }
BW_SIMD_INLINE Vector Min(Vector a, Vector b) { return {_mm512_min_ps(a.v, b.v)}; }
BW_SIMD_INLINE Vector RoundToEven(Vector a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a * 2^n for whole n.
BW_SIMD_INLINE Vector TimesPowerOfTwo(Vector a, Vector n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// Lanes are added (compared) in halves: 16 to 8 to 4 to 2 to 1.
BW_SIMD_INLINE float SumOfLanes(Vector a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
BW_SIMD_INLINE float MaxOfLanes(Vector a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Sixteen running sums in double.
struct DoubleVector {
  __m512d low, high;
};
BW_SIMD_INLINE DoubleVector DoubleZero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
BW_SIMD_INLINE DoubleVector AddTo(DoubleVector sums, Vector a) {
  return {_mm512_add_pd(sums.low, _mm512_cvtps_pd(_mm512_castps512_ps256(a.v))),
          _mm512_add_pd(sums.high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1)))};
}
BW_SIMD_INLINE double SumOfLanes(DoubleVector a) {
  const __m512d eight = _mm512_add_pd(a.low, a.high);
  const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

// 16-bit formats.
BW_SIMD_INLINE Vector FromBF16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
BW_SIMD_INLINE Vector LoadBF16(const void* p) {
  return FromBF16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
BW_SIMD_INLINE Vector LoadFirstBF16(const void* p, int64_t count) {
  return FromBF16(_mm256_maskz_loadu_epi16(FirstLanes(count), p));
}
BW_SIMD_INLINE Vector LoadF16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
BW_SIMD_INLINE Vector LoadFirstF16(const void* p, int64_t count) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(count), p))};
}
// The even (part 0) or odd columns of 16 pairs of bf16.
BW_SIMD_INLINE Vector WidenHalfOfPairs(const void* p, int part) {
  const __m512i pairs = _mm512_loadu_si512(p);
  const __m512i bits =
      part == 0 ? _mm512_slli_epi32(pairs, 16) : _mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000));
  return {_mm512_castsi512_ps(bits)};
}
// Rounded to nearest even; NaN stays NaN (dtype.h's BF16FromF32).
BW_SIMD_INLINE void StoreBF16(Vector a, uint16_t* p) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i high = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(high));
}
BW_SIMD_INLINE void StoreF16(Vector a, uint16_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// The largest |lane| of both; NaN if any lane is.
BW_SIMD_INLINE float LargestMagnitude(Vector a, Vector b) {
  // As unsigned integers, magnitudes order like floats, with NaN above infinity.
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i largest = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a.v), magnitude),
                                           _mm512_and_si512(_mm512_castps_si512(b.v), magnitude));
  const uint32_t bits = _mm512_reduce_max_epu32(largest);
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}
// Writes the lanes as int8, rounded to nearest even and kept within +-127; returns their sum.
BW_SIMD_INLINE int32_t StoreInt8(Vector a, int8_t* p) {
  __m512i q = _mm512_cvtps_epi32(a.v);
  q = _mm512_max_epi32(_mm512_min_epi32(q, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
  return _mm512_reduce_add_epi32(q);
}

}  // namespace bellwether::kernels::BW_LEVEL
