#if defined(__x86_64__)
#include "kernels/cpu/avx512_vector.h"
// The level first: the next header is written in its terms.
#include "kernels/cpu/avx_levels.h"
#include "kernels/cpu/avx_tiles_inl.h"

namespace bellwether::kernels::avx512 {
namespace {

// Dot products of unsigned weights with signed activations.
struct IntegerDots {
  using Sums = __m512i;
  using WeightOperand = __m512i;
  using ActivationOperand = __m512i;
  static BW_SIMD_INLINE Sums Start(int correction) { return _mm512_set1_epi32(correction); }
  static BW_SIMD_INLINE Vector Finish(Sums sums, int) { return {_mm512_cvtepi32_ps(sums)}; }
  static BW_SIMD_INLINE __m512i Activations(const std::byte* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static BW_SIMD_INLINE Sums Accumulate(Sums sums, __m512i weights, __m512i activations) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(activations));
    return sums;
  }
};

struct Int8 : IntegerDots {
  static constexpr int kGroupBytes = 8;
  static BW_SIMD_INLINE __m512i Weights(const std::byte* p, int) { return _mm512_loadu_si512(p); }
};

struct Int4 : IntegerDots {
  static constexpr int kGroupBytes = 4;
  static BW_SIMD_INLINE __m512i Weights(const std::byte* p, int part) {
    const __m512i nibbles = _mm512_loadu_si512(p);
    return _mm512_and_si512(part == 0 ? nibbles : _mm512_srli_epi32(nibbles, 4), _mm512_set1_epi8(15));
  }
};

}  // namespace

const TileFunctions& Tiles(WeightFormat format) {
  static constexpr TileFunctions kTiles[] = {FloatTiles<Float32, 6, 6>(), FloatTiles<BFloat16, 6, 6>(),
                                             FloatTiles<Float16, 6, 6>(), QuantizedTiles<Int8, 6, 6>(),
                                             QuantizedTiles<Int4, 6, 6>()};
  static_assert(std::size(kTiles) == static_cast<int>(WeightFormat::kInt4) + 1);
  return kTiles[static_cast<int>(format)];
}

}  // namespace bellwether::kernels::avx512

#endif  // __x86_64__
