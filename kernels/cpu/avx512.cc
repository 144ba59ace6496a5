#include "kernels/kernels.h"

namespace bellwether::kernels {

const KernelTable* Avx512Kernels() { return nullptr; }

}  // namespace bellwether::kernels
