#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/gpu/runtime.h"

namespace bellwether {

// What --device can name on this machine.
struct Devices {
  std::vector<gpu::DeviceInfo> gpus;
  std::string problem;  // why there are none
};
std::string DevicesText(const Devices& devices);
std::string DevicesJson(const Devices& devices);

struct DevicesOptions {
  bool json = false;
};
// Prints it, or in one line why there is no GPU.
absl::Status RunDevices(const DevicesOptions& options);

}  // namespace bellwether
