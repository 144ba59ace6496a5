#pragma once

namespace bellwether::gpu {

// The host's handle of a __global__ function, for cudaLaunchKernelExC; by the number of enum Kernel.
const void* CudaKernel(int kernel);

}  // namespace bellwether::gpu
