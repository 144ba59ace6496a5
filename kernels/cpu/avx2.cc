#if defined(__x86_64__)
#include "kernels/cpu/avx2_vector.h"
// The level first: the next headers are written in its terms.
#include "kernels/cpu/avx_attention_inl.h"
#include "kernels/cpu/avx_levels.h"
#include "kernels/cpu/avx_rows_inl.h"

namespace bellwether::kernels {
namespace avx2 {
namespace {

void Matmul(const MatmulArgs& args) { MultiplyByTiles(args, Tiles(args.weights->format())); }

constexpr KernelTable kTable = {
    .level = KernelLevel::kAvx2,
    .prepare_rows = PrepareRows<false>,
    .matmul = Matmul,
    .write_kv = WriteKv,
    .attention = Attention,
    .rms_norm = RmsNorm,
    .layer_norm = LayerNorm,
    .rope = Rope,
    .silu_multiply = SiluMultiply,
    .gelu = Gelu,
    .add_bias = AddBias,
    .add = AddVectors,
};

}  // namespace
}  // namespace avx2

const KernelTable* Avx2Kernels() { return &avx2::kTable; }

}  // namespace bellwether::kernels

#else
#include "kernels/kernels.h"
namespace bellwether::kernels {
const KernelTable* Avx2Kernels() { return nullptr; }
}  // namespace bellwether::kernels
#endif  // __x86_64__
