// The kernels of kernel_list.h as __global__ functions. The only file that nvcc compiles.

#include "kernels/gpu/cuda_kernels.h"
#include "kernels/gpu/kernel_list.h"

namespace bellwether::gpu {

#define BW_GLOBAL(name, arguments, body, threads, blocks)                                                    \
  __global__ void __launch_bounds__(threads, blocks) name##_kernel(const __grid_constant__ arguments args) { \
    body(args);                                                                                              \
  }
BW_GPU_KERNELS(BW_GLOBAL)
#undef BW_GLOBAL

// wgmma is Hopper's alone: elsewhere these are never launched (runtime.h, DeviceInfo::hopper).
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define BW_HOPPER_BODY(body, args) body(args)
#else
#define BW_HOPPER_BODY(body, args)
#endif
#define BW_GLOBAL(name, arguments, body, threads, blocks)                                                    \
  __global__ void __launch_bounds__(threads, blocks) name##_kernel(const __grid_constant__ arguments args) { \
    BW_HOPPER_BODY(body, args);                                                                              \
  }
BW_HOPPER_KERNELS(BW_GLOBAL)
#undef BW_GLOBAL

const void* CudaKernel(int kernel) {
#define BW_POINTER(name, arguments, body, threads, blocks) reinterpret_cast<const void*>(&name##_kernel),
  static const void* const kPointers[] = {BW_GPU_KERNELS(BW_POINTER) BW_HOPPER_KERNELS(BW_POINTER)};
#undef BW_POINTER
  return kPointers[kernel];
}

}  // namespace bellwether::gpu
