#include "kernels/gpu/runtime.h"

// In place of runtime_cuda.cc where no CUDA toolkit was found.

namespace bellwether::gpu {

absl::StatusOr<std::vector<DeviceInfo>> ListCudaDevices() {
  return absl::UnavailableError("this program was built without CUDA: build it where nvcc is found");
}

absl::StatusOr<std::unique_ptr<Runtime>> MakeCudaRuntime(int) { return ListCudaDevices().status(); }

}  // namespace bellwether::gpu
