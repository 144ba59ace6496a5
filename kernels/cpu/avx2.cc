#include "kernels/kernels.h"

namespace bellwether::kernels {

const KernelTable* Avx2Kernels() { return nullptr; }

}  // namespace bellwether::kernels
