#pragma once

#include <memory>
#include <string>

#include "kernels/gpu/runtime.h"
#include "worker/device/device.h"

namespace bellwether {

// A GPU for a test: an emulated one, or the machine's first where BELLWETHER_TEST_CUDA is set.
std::shared_ptr<Device> TestGpu(const gpu::EmulatedCard& card = gpu::kEmulatedHopper);
// The kernel level it computes.
std::string TestGpuLevel(const gpu::EmulatedCard& card = gpu::kEmulatedHopper);
// Whether it is a real one.
bool TestGpuIsReal();
// Whether there is time for every model, layout and position: BELLWETHER_ALL_LAYOUTS is set, as by
// tools/check.sh. The emulator takes milliseconds a token.
bool TestEveryLayout();

}  // namespace bellwether
