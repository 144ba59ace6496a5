#include "kernels/kernels.h"

namespace bellwether::kernels {
const KernelTable* PortableKernels() { return nullptr; }
}  // namespace bellwether::kernels
