#pragma once

#include <cstdlib>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "kernels/gpu/runtime.h"

// The GPU of a test: an emulated one, or the machine's first where BELLWETHER_TEST_CUDA is set, as by
// tools/gpu_check.sh.

namespace bellwether::gpu {

inline bool TestsRunOnACard() { return std::getenv("BELLWETHER_TEST_CUDA") != nullptr; }

// The emulated card that computes as a card does, by the same kernels.
inline const EmulatedCard& EmulatedLike(const DeviceInfo& info) {
  if (info.numeric_class == kEmulatedAmpere.numeric_class) return kEmulatedAmpere;
  return info.hopper ? kEmulatedHopper : kEmulatedBlackwell;
}

inline std::unique_ptr<Runtime> MakeTestRuntime(const EmulatedRuntimeOptions& emulated) {
  if (!TestsRunOnACard()) return MakeEmulatedRuntime(emulated);
  auto runtime = MakeCudaRuntime(0);
  if (!runtime.ok()) LogError(runtime.status().ToString());
  BW_CHECK(runtime.ok());
  return *std::move(runtime);
}

}  // namespace bellwether::gpu
