#include "kernels/cpu/portable.h"

#include "kernels/reference/reference.h"

namespace bellwether::kernels {

const KernelTable* PortableKernels() {
  static constexpr KernelTable kTable = {
      .level = KernelLevel::kPortable,
      .prepare_rows = portable::PrepareRows,
      .matmul = portable::Matmul,
      // Scattered stores, once a token: nothing to gain.
      .write_kv = reference::WriteKv,
      .attention = portable::Attention,
      .rms_norm = portable::RmsNorm,
      .layer_norm = portable::LayerNorm,
      .rope = portable::Rope,
      .silu_multiply = portable::SiluMultiply,
      .gelu = portable::Gelu,
      .add_bias = portable::AddBias,
      .add = portable::Add,
  };
  return &kTable;
}

}  // namespace bellwether::kernels
