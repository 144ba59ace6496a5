#include "worker/session_machine.h"

#include <algorithm>
#include <string>

#include "common/quote.h"
#include "kernels/peaks.h"
#include "worker/device/open_device.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

// Where the system does not tell what is available.
constexpr int64_t kMemoryBytesMax = int64_t{1} << 50;
constexpr double kBandwidthSampleSeconds = 0.05, kArithmeticSampleSeconds = 0.02;

void Encode(const GpuInventory& gpu, v1::Gpu* out) {
  out->set_name(Printable(gpu.name));
  out->set_uuid(Printable(gpu.uuid));
  out->set_memory_bytes(gpu.memory_bytes);
  out->set_free_bytes(gpu.free_bytes);
  out->set_copy_bytes_per_second(gpu.copy_bytes_per_second);
}

}  // namespace

void DescribeMachine(const WorkerSession::Options& options, v1::JoinRequest* join) {
  join->set_name(Printable(options.name));
  join->set_host_id(Printable(options.host_id.empty() ? HostId() : options.host_id));
  join->set_memory_bytes(
      std::min(kMemoryBytesMax, options.memory_bytes > 0 ? options.memory_bytes : AvailableMemoryBytes()));
  join->set_threads(options.threads);
  for (const int cpu : options.cpus.empty() ? AllowedCpus() : options.cpus) join->add_cpus(cpu);
  join->set_cpu_quota(CpuQuota());
  join->set_cpu_type(CpuType());
  const OpenedDevice& device = options.device;
  if (device.gpu) Encode(*device.gpu, join->mutable_gpu());
  join->set_read_bytes_per_second(device.gpu ? device.gpu->read_bytes_per_second
                                             : SampleReadBandwidth(options.threads, kBandwidthSampleSeconds));
  const auto rate = [&](kernels::Arithmetic kind) {
    return SampleArithmetic(kind, options.threads, kArithmeticSampleSeconds);
  };
  join->set_float_operations_per_second(device.gpu ? device.gpu->float_operations_per_second
                                                   : rate(kernels::Arithmetic::kBF16));
  join->set_int8_operations_per_second(device.gpu ? device.gpu->int8_operations_per_second
                                                  : rate(kernels::Arithmetic::kInt8));
  for (const std::string& level : device.kernel_levels) join->add_kernel_levels(level);
}

}  // namespace bellwether
