#include "kernels/reference/reference.h"

namespace bellwether::kernels {

const KernelTable* ReferenceKernels() {
  static constexpr KernelTable kTable = {
      .level = KernelLevel::kReference,
      .prepare_rows = reference::PrepareRows,
      .matmul = reference::Matmul,
      .write_kv = reference::WriteKv,
      .attention = reference::Attention,
      .rms_norm = reference::RmsNorm,
      .layer_norm = reference::LayerNorm,
      .rope = reference::Rope,
      .silu_multiply = reference::SiluMultiply,
      .gelu = reference::Gelu,
      .add_bias = reference::AddBias,
      .add = reference::Add,
  };
  return &kTable;
}

}  // namespace bellwether::kernels
