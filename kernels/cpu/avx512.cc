#if defined(__x86_64__)
#include "kernels/cpu/avx512_vector.h"
// The level first: the next headers are written in its terms.
#include "kernels/cpu/avx_attention_inl.h"
#include "kernels/cpu/avx_levels.h"
#include "kernels/cpu/avx_rows_inl.h"

namespace bellwether::kernels {
namespace avx512 {
namespace {

void Matmul(const MatmulArgs& args) { MultiplyByTiles(args, Tiles(args.weights->format())); }

void MatmulWithBF16(const MatmulArgs& args) {
  const WeightFormat format = args.weights->format();
  MultiplyByTiles(args, format == WeightFormat::kBF16 ? avx512_bf16::BF16Tiles() : Tiles(format));
}

constexpr KernelTable kTable = {
    .level = KernelLevel::kAvx512,
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

constexpr KernelTable WithBF16() {
  KernelTable table = kTable;
  table.level = KernelLevel::kAvx512Bf16;
  table.prepare_rows = PrepareRows<true>;
  table.matmul = MatmulWithBF16;
  return table;
}
constexpr KernelTable kTableWithBF16 = WithBF16();

}  // namespace
}  // namespace avx512

const KernelTable* Avx512Kernels() { return &avx512::kTable; }
const KernelTable* Avx512Bf16Kernels() { return &avx512::kTableWithBF16; }

}  // namespace bellwether::kernels

#else
#include "kernels/kernels.h"
namespace bellwether::kernels {
const KernelTable* Avx512Kernels() { return nullptr; }
const KernelTable* Avx512Bf16Kernels() { return nullptr; }
}  // namespace bellwether::kernels
#endif  // __x86_64__
