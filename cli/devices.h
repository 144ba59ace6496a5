#pragma once

#include "absl/status/status.h"

namespace bellwether {

struct DevicesOptions {
  bool json = false;
};
// Prints what --device can name on this machine, or in one line why there is no GPU.
absl::Status RunDevices(const DevicesOptions& options);

}  // namespace bellwether
