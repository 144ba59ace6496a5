#include "worker/device/open_device.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/format_bytes.h"
#include "common/log.h"
#include "common/status.h"
#include "kernels/gpu/runtime.h"
#include "worker/device/cpu_device.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_rates.h"
#include "worker/device/gpu_weights.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

constexpr int64_t kSampleBytesMax = int64_t{256} << 20;  // far beyond any cache
constexpr int64_t kCopySampleBytes = int64_t{64} << 20;
constexpr int kSampleCopies = 10;
constexpr double kBandwidthMin = 1e6;
// The emulator's own speed says nothing: a plan that counts on it is the same everywhere.
constexpr double kEmulatedBandwidth = 1e9;

// Of a copy that moves so many bytes.
absl::StatusOr<double> MeasureRate(gpu::Runtime& runtime, int64_t bytes, absl::FunctionRef<void()> copy) {
  absl::Duration begin;
  for (int i = 0; i <= kSampleCopies; ++i) {
    if (i == 1) {  // the first one also waits for memory that is being cleared
      BW_RETURN_IF_ERROR(runtime.Synchronize());
      begin = Clock::Real()->Now();
    }
    copy();
  }
  BW_RETURN_IF_ERROR(runtime.Synchronize());
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  return std::max(kBandwidthMin, kSampleCopies * static_cast<double>(bytes) / std::max(seconds, 1e-9));
}

// Bytes per second that come from memory when a kernel does nothing else: a copy on the device reads one byte
// for each that it writes, and both go at the rate of reading.
absl::StatusOr<double> MeasureReadBandwidth(const std::shared_ptr<gpu::Runtime>& runtime,
                                            int64_t free_bytes) {
  const int64_t bytes = std::min(kSampleBytesMax, free_bytes / 8 / 256 * 256);
  BW_ASSIGN_OR_RETURN(const GpuMemory from, GpuMemory::Allocate(runtime, bytes));
  BW_ASSIGN_OR_RETURN(const GpuMemory to, GpuMemory::Allocate(runtime, bytes));
  return MeasureRate(*runtime, 2 * bytes, [&] { runtime->CopyOnDevice(to.data(), from.data(), bytes); });
}

// Bytes per second that come from the host's memory while nothing else is copied.
absl::StatusOr<double> MeasureCopyRate(const std::shared_ptr<gpu::Runtime>& runtime, int64_t free_bytes) {
  const int64_t bytes = std::min(kCopySampleBytes, free_bytes / 8 / 256 * 256);
  BW_ASSIGN_OR_RETURN(const PinnedMemory from, PinnedMemory::Allocate(runtime, bytes));
  BW_ASSIGN_OR_RETURN(const GpuMemory to, GpuMemory::Allocate(runtime, bytes));
  return MeasureRate(*runtime, bytes, [&] { runtime->CopyToDevice(to.data(), from.data(), bytes); });
}

// 0, which plans take for not known, where there is no room for the sample.
absl::StatusOr<double> ProductRate(const std::shared_ptr<gpu::Runtime>& runtime, WeightFormat format) {
  absl::StatusOr<double> rate = MeasureProductRate(runtime, {.format = format});
  return absl::IsResourceExhausted(rate.status()) ? 0 : std::move(rate);
}

OpenedDevice OpenCpu(const DeviceOptions& options) {
  return {.device = std::make_shared<CpuDevice>(options.threads, options.cpus),
          .kernel_levels = KernelLevelNames()};
}

OpenedDevice Opened(std::shared_ptr<gpu::Runtime> runtime, GpuInventory gpu, int threads) {
  std::vector<std::string> levels = {runtime->info().numeric_class};
  return {
      .device = std::make_shared<GpuDevice>(std::move(runtime), threads, [] { return FreeMemoryBytes(); }),
      .kernel_levels = std::move(levels),
      .gpu = std::move(gpu)};
}

absl::StatusOr<OpenedDevice> OpenCuda(int index, int threads) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<gpu::Runtime> runtime, gpu::MakeCudaRuntime(index));
  const gpu::DeviceInfo& info = runtime->info();
  GpuInventory gpu{.name = info.name, .uuid = info.uuid, .memory_bytes = info.memory_bytes};
  BW_ASSIGN_OR_RETURN(gpu.free_bytes, runtime->FreeBytes());
  BW_ASSIGN_OR_RETURN(gpu.read_bytes_per_second, MeasureReadBandwidth(runtime, gpu.free_bytes));
  BW_ASSIGN_OR_RETURN(gpu.copy_bytes_per_second, MeasureCopyRate(runtime, gpu.free_bytes));
  BW_ASSIGN_OR_RETURN(gpu.float_operations_per_second, ProductRate(runtime, WeightFormat::kBF16));
  BW_ASSIGN_OR_RETURN(gpu.int8_operations_per_second, ProductRate(runtime, WeightFormat::kInt8));
  LogInfo("cuda:", index, " (", info.name, "): computes as ", info.numeric_class, ", ",
          FormatBytes(static_cast<double>(gpu.free_bytes)), " of ",
          FormatBytes(static_cast<double>(gpu.memory_bytes)), " free, ",
          FormatBytes(gpu.read_bytes_per_second), "/s, ", FormatBytes(gpu.copy_bytes_per_second),
          "/s from the host, ",
          gpu.float_operations_per_second == 0
              ? "no room to measure products"
              : absl::StrCat(static_cast<int64_t>(gpu.float_operations_per_second / 1e12),
                             " TFLOP/s of products"));
  return Opened(runtime, std::move(gpu), threads);
}

OpenedDevice OpenEmulated(int threads) {
  const std::shared_ptr<gpu::Runtime> runtime = gpu::MakeEmulatedRuntime({.threads = threads});
  const gpu::DeviceInfo& info = runtime->info();
  LogWarning("the GPU is an emulated one, for tests: thousands of times slower than a card");
  // Each process emulates a card of its own.
  return Opened(runtime,
                {.name = info.name,
                 .uuid = absl::StrCat(info.uuid, "-", getpid()),
                 .memory_bytes = info.memory_bytes,
                 .free_bytes = info.free_bytes,
                 .read_bytes_per_second = kEmulatedBandwidth,
                 .copy_bytes_per_second = kEmulatedBandwidth},
                threads);
}

absl::StatusOr<OpenedDevice> OpenAny(const DeviceOptions& options) {
  absl::StatusOr<OpenedDevice> gpu = OpenCuda(0, options.threads);
  const absl::Status& why = gpu.status();
  const bool none = absl::IsUnavailable(why) || absl::IsNotFound(why) || absl::IsFailedPrecondition(why);
  if (!none) return gpu;
  LogWarning("device auto: the CPU computes, as there is no GPU to use (", why.message(), ")");
  return OpenCpu(options);
}

}  // namespace

absl::StatusOr<OpenedDevice> OpenDevice(const DeviceOptions& options) {
  switch (options.name.kind) {
    case DeviceName::Kind::kCpu:
      return OpenCpu(options);
    case DeviceName::Kind::kCuda:
      return OpenCuda(options.name.index, options.threads);
    case DeviceName::Kind::kAuto:
      return OpenAny(options);
    case DeviceName::Kind::kEmulated:
      break;
  }
  return OpenEmulated(options.threads);
}

}  // namespace bellwether
