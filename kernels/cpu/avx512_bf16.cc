#include "kernels/kernels.h"

namespace bellwether::kernels {

const KernelTable* Avx512Bf16Kernels() { return nullptr; }

}  // namespace bellwether::kernels
