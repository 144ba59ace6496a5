#pragma once

#include <string_view>

#include "absl/status/statusor.h"

namespace bellwether {

// What --device names.
struct DeviceName {
  enum class Kind {
    kCpu,
    kCuda,      // "cuda:0": a GPU, of those that CUDA_VISIBLE_DEVICES shows
    kAuto,      // the first GPU, or the CPU where there is none
    kEmulated,  // GPU kernels without a GPU, for tests
  } kind = Kind::kCpu;
  int index = 0;  // of kCuda
};

// "cpu", "cuda:N", "auto" or "emulated"; InvalidArgument says what is expected.
absl::StatusOr<DeviceName> ParseDeviceName(std::string_view name);

}  // namespace bellwether
