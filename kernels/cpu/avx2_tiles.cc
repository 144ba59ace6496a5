#if defined(__x86_64__)
#include "kernels/cpu/avx2_vector.h"
// The level first: the next header is written in its terms.
#include "kernels/cpu/avx_levels.h"
#include "kernels/cpu/avx_tiles_inl.h"

namespace bellwether::kernels::avx2 {
namespace {

struct IntegerPair {
  __m256i low, high;  // 8 outputs each
};

BW_SIMD_INLINE IntegerPair LoadPair(const std::byte* p) {
  const auto* halves = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
}
BW_SIMD_INLINE __m256i BroadcastFour(const std::byte* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}
// Neighbouring 16-bit numbers added up.
BW_SIMD_INLINE __m256i AddPairs(__m256i a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }

// vpmaddubsw multiplies unsigned by signed bytes and adds pairs, saturating at 16 bits. With |q| <= 128 as
// the unsigned side and +-127 as the signed one, two products reach 32512 at most: always exact.
struct Int8 {
  static constexpr int kGroupBytes = 8;
  using Sums = IntegerPair;
  using WeightOperand = IntegerPair;  // q
  using ActivationOperand = __m256i;
  static BW_SIMD_INLINE Sums Start(int) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static BW_SIMD_INLINE Vector Finish(Sums sums, int) {
    return {_mm256_cvtepi32_ps(sums.low), _mm256_cvtepi32_ps(sums.high)};
  }
  static BW_SIMD_INLINE IntegerPair Weights(const std::byte* p, int) {
    const IntegerPair stored = LoadPair(p);  // q + 128
    const __m256i top_bit = _mm256_set1_epi8(-128);
    return {_mm256_xor_si256(stored.low, top_bit), _mm256_xor_si256(stored.high, top_bit)};
  }
  static BW_SIMD_INLINE __m256i Activations(const std::byte* p) { return BroadcastFour(p); }
  static BW_SIMD_INLINE __m256i Dot(__m256i q, __m256i activations) {
    return AddPairs(_mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(activations, q)));
  }
  static BW_SIMD_INLINE Sums Accumulate(Sums sums, IntegerPair q, __m256i activations) {
    return {_mm256_add_epi32(sums.low, Dot(q.low, activations)),
            _mm256_add_epi32(sums.high, Dot(q.high, activations))};
  }
};

// Nibbles are small enough for a whole block to add up in 16 bits: 16 columns x 15 x 127 = 30480.
struct Int4 {
  static constexpr int kGroupBytes = 4;
  using Sums = IntegerPair;
  using WeightOperand = IntegerPair;
  using ActivationOperand = __m256i;
  static BW_SIMD_INLINE Sums Start(int) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static BW_SIMD_INLINE Vector Finish(Sums sums, int correction) {
    const __m256i start = _mm256_set1_epi32(correction);
    return {_mm256_cvtepi32_ps(_mm256_add_epi32(AddPairs(sums.low), start)),
            _mm256_cvtepi32_ps(_mm256_add_epi32(AddPairs(sums.high), start))};
  }
  static BW_SIMD_INLINE __m256i Nibbles(__m256i bytes, int part) {
    return _mm256_and_si256(part == 0 ? bytes : _mm256_srli_epi32(bytes, 4), _mm256_set1_epi8(15));
  }
  static BW_SIMD_INLINE IntegerPair Weights(const std::byte* p, int part) {
    const IntegerPair bytes = LoadPair(p);
    return {Nibbles(bytes.low, part), Nibbles(bytes.high, part)};
  }
  static BW_SIMD_INLINE __m256i Activations(const std::byte* p) { return BroadcastFour(p); }
  static BW_SIMD_INLINE Sums Accumulate(Sums sums, IntegerPair weights, __m256i activations) {
    return {_mm256_add_epi16(sums.low, _mm256_maddubs_epi16(weights.low, activations)),
            _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(weights.high, activations))};
  }
};

}  // namespace

const TileFunctions& Tiles(WeightFormat format) {
  // 16 registers: 64 outputs only for a single row.
  static constexpr TileFunctions kTiles[] = {FloatTiles<Float32, 6, 1>(), FloatTiles<BFloat16, 6, 1>(),
                                             FloatTiles<Float16, 6, 1>(), QuantizedTiles<Int8, 4, 1>(),
                                             QuantizedTiles<Int4, 4, 1>()};
  static_assert(std::size(kTiles) == static_cast<int>(WeightFormat::kInt4) + 1);
  return kTiles[static_cast<int>(format)];
}

}  // namespace bellwether::kernels::avx2

#endif  // __x86_64__
