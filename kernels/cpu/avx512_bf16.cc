#if defined(__x86_64__)
// The one product that AVX512_BF16 changes: bf16 weights times activations rounded to bf16.
#define BW_LEVEL avx512_bf16
#define BW_SIMD __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")))
#include "kernels/cpu/avx512_vector.h"
// The level first: the next header is written in its terms.
#include "kernels/cpu/avx_levels.h"
#include "kernels/cpu/avx_tiles_inl.h"

namespace bellwether::kernels::avx512_bf16 {
namespace {

struct BF16Pairs {
  static constexpr int kOutputBytes = 4, kActivationBytes = 4, kParts = 1;
  using Operand = __m512i;
  static BW_SIMD_INLINE __m512i Weights(const std::byte* p, int) { return _mm512_loadu_si512(p); }
  static BW_SIMD_INLINE __m512i Activations(const std::byte* p, int) {
    int32_t pair;
    std::memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  static BW_SIMD_INLINE Vector MultiplyAddTo(Vector sums, __m512i weights, __m512i activations) {
    return {_mm512_dpbf16_ps(sums.v, reinterpret_cast<__m512bh>(weights),
                             reinterpret_cast<__m512bh>(activations))};
  }
};

}  // namespace

const TileFunctions& BF16Tiles() {
  static constexpr TileFunctions kTiles = FloatTiles<BF16Pairs, 6, 6>();
  return kTiles;
}

}  // namespace bellwether::kernels::avx512_bf16

#endif  // __x86_64__
