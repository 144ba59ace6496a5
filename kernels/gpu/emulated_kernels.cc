#include "kernels/gpu/kernel_list.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {

EmulatedKernel EmulatedBody(Kernel kernel) {
  switch (kernel) {
#define BW_CASE(name, arguments, body, threads, blocks) \
  case Kernel::name:                                    \
    return [](const void* args) { body(*static_cast<const arguments*>(args)); };
    BW_GPU_KERNELS(BW_CASE)
    BW_HOPPER_KERNELS(BW_CASE)
#undef BW_CASE
    case Kernel::kCount:
      break;
  }
  return nullptr;
}

}  // namespace bellwether::gpu
