#include "tests/layouts/test_gpu.h"

#include <atomic>
#include <cstdlib>

#include "common/check.h"
#include "kernels/gpu/testing/test_runtime.h"
#include "worker/device/gpu_device.h"

namespace bellwether {
namespace {

std::unique_ptr<gpu::Runtime> TestRuntime(const gpu::EmulatedCard& card) {
  static std::atomic<uint64_t> seed{1};
  return gpu::MakeTestRuntime({.seed = seed.fetch_add(1000), .threads = 2, .card = card});
}

}  // namespace

std::shared_ptr<Device> TestGpu(const gpu::EmulatedCard& card) {
  return std::make_shared<GpuDevice>(TestRuntime(card), /*threads=*/2);
}

std::string TestGpuLevel(const gpu::EmulatedCard& card) {
  if (!TestGpuIsReal()) return card.numeric_class;
  const auto devices = gpu::ListCudaDevices();
  BW_CHECK(devices.ok() && !devices->empty());
  return devices->front().numeric_class;
}

bool TestGpuIsReal() { return gpu::TestsRunOnACard(); }

bool TestEveryLayout() { return std::getenv("BELLWETHER_ALL_LAYOUTS") != nullptr; }

}  // namespace bellwether
