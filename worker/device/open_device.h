#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device_name.h"
#include "worker/device/device.h"

namespace bellwether {

// A GPU as the planner counts it: it has memory of its own.
struct GpuInventory {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  std::string uuid;  // equal for workers that share a card
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;            // when it was opened
  double read_bytes_per_second = 0;  // measured; > 0
  double copy_bytes_per_second = 0;  // from pinned memory of the host; likewise
  // Of products of prompts with weights of these kinds (gpu_rates.h); 0: not known.
  double float_operations_per_second = 0, int8_operations_per_second = 0;
};

struct OpenedDevice {
  std::shared_ptr<Device> device;
  std::vector<std::string> kernel_levels;  // that it can compute as, ascending; never empty
  std::optional<GpuInventory> gpu;         // absent: this machine's CPU and memory
};

struct DeviceOptions {
  DeviceName name;
  int threads = 1;        // of the host
  std::vector<int> cpus;  // of the threads; empty: wherever the system likes
};

// An error says what is wrong with the device and what to do, in one line. Where "auto" takes the CPU, the
// reason is logged.
absl::StatusOr<OpenedDevice> OpenDevice(const DeviceOptions& options);

}  // namespace bellwether
