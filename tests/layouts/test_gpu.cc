#include "tests/layouts/test_gpu.h"

#include <atomic>
#include <cstdlib>

#include "common/check.h"
#include "common/log.h"
#include "kernels/gpu/runtime.h"
#include "worker/device/gpu_device.h"

namespace bellwether {
namespace {

std::unique_ptr<gpu::Runtime> TestRuntime() {
  if (std::getenv("BELLWETHER_TEST_CUDA") != nullptr) {
    auto runtime = gpu::MakeCudaRuntime(0);
    if (!runtime.ok()) LogError(runtime.status().ToString());
    BW_CHECK(runtime.ok());
    return *std::move(runtime);
  }
  static std::atomic<uint64_t> seed{1};
  return gpu::MakeEmulatedRuntime({.seed = seed.fetch_add(1000), .threads = 2});
}

}  // namespace

std::shared_ptr<Device> TestGpu() { return std::make_shared<GpuDevice>(TestRuntime(), /*threads=*/2); }

std::string TestGpuLevel() { return "cuda_sm90"; }

bool TestEveryLayout() { return std::getenv("BELLWETHER_ALL_LAYOUTS") != nullptr; }

}  // namespace bellwether
