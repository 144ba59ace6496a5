#include "cli/devices.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/format_bytes.h"
#include "common/json.h"
#include "common/output.h"
#include "kernels/gpu/runtime.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

Devices FindDevices() {
  absl::StatusOr<std::vector<gpu::DeviceInfo>> gpus = gpu::ListCudaDevices();
  if (!gpus.ok()) return {.problem = std::string(gpus.status().message())};
  Devices devices{.gpus = *std::move(gpus)};
  if (devices.gpus.empty()) {
    devices.problem =
        "the NVIDIA driver shows none to this process: nvidia-smi lists the machine's, CUDA_VISIBLE_DEVICES "
        "hides some";
  }
  return devices;
}

std::string CpuLine() {
  return absl::StrFormat("cpu       %s: %d cores, kernel levels %s, %s of memory available\n", CpuName(),
                         AllowedCpus().size(), absl::StrJoin(KernelLevelNames(), ", "),
                         FormatBytes(static_cast<double>(AvailableMemoryBytes())));
}

}  // namespace

std::string DevicesText(const Devices& devices) {
  std::string text;
  for (const gpu::DeviceInfo& gpu : devices.gpus) {
    const std::string use = gpu::IsSupported(gpu) ? absl::StrCat("kernel level ", gpu.numeric_class)
                                                  : "not supported: compute capability below 8.0";
    absl::StrAppendFormat(&text, "%-9s %s: %s, %s of %s free, %d multiprocessors, %s\n",
                          absl::StrCat("cuda:", gpu.index), gpu.name, use,
                          FormatBytes(static_cast<double>(gpu.free_bytes)),
                          FormatBytes(static_cast<double>(gpu.memory_bytes)), gpu.multiprocessors, gpu.uuid);
    if (!gpu.problem.empty()) absl::StrAppend(&text, "          ", gpu.problem, "\n");
  }
  text += CpuLine();
  if (!devices.problem.empty()) absl::StrAppend(&text, "no GPU: ", devices.problem, "\n");
  return text;
}

std::string DevicesJson(const Devices& devices) {
  Json gpus = Json::array();
  for (const gpu::DeviceInfo& gpu : devices.gpus) {
    gpus.push_back(Json::object({{"device", absl::StrCat("cuda:", gpu.index)},
                                 {"name", gpu.name},
                                 {"uuid", gpu.uuid},
                                 {"kernel_level", gpu.numeric_class},
                                 {"supported", gpu::IsSupported(gpu)},
                                 {"problem", gpu.problem},
                                 {"memory_bytes", gpu.memory_bytes},
                                 {"free_bytes", gpu.free_bytes},
                                 {"multiprocessors", gpu.multiprocessors}}));
  }
  Json levels = Json::array();
  for (const std::string& level : KernelLevelNames()) levels.push_back(level);
  Json json = Json::object({{"gpus", std::move(gpus)}, {"gpu_problem", devices.problem}});
  json["cpu"] = Json::object({{"name", CpuName()},
                              {"cores", AllowedCpus().size()},
                              {"kernel_levels", std::move(levels)},
                              {"free_bytes", AvailableMemoryBytes()}});
  return WriteJson(json, /*indent=*/2) + "\n";
}

absl::Status RunDevices(const DevicesOptions& options) {
  const Devices devices = FindDevices();
  return WriteOutput(options.json ? DevicesJson(devices) : DevicesText(devices));
}

}  // namespace bellwether
