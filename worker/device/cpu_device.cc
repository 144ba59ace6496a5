#include "worker/device/cpu_device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/aligned_buffer.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "model/row_limits.h"
#include "worker/device/cpu_ops.h"

namespace bellwether {

CpuDevice::CpuDevice(int threads, std::vector<int> cpus) : threads_(threads), cpus_(std::move(cpus)) {}

std::string CpuDevice::Describe() const {
  return absl::StrCat("cpu, ", threads_, threads_ == 1 ? " thread" : " threads");
}

int64_t CpuDevice::layer_rows_max() const { return kLayerRowsMax; }

absl::StatusOr<std::shared_ptr<WeightStore>> CpuDevice::NewWeightStore(
    absl::Span<const kernels::MatrixSpec> matrices, WeightHome home, bool /*with_image*/) {
  if (home == WeightHome::kHost)
    return absl::FailedPreconditionError("the weights of a CPU are in the host's memory anyway");
  return NewPackedStore(matrices);
}

std::string CpuDevice::image_form() const { return PackedImageForm(); }

absl::StatusOr<std::shared_ptr<std::byte>> NewPlainImage(int64_t bytes) {
  BW_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(RoundUp(bytes, kImagePageBytes)));
  const auto owner = std::make_shared<AlignedBuffer>(std::move(buffer));
  return std::shared_ptr<std::byte>(owner, owner->data());
}

absl::StatusOr<std::shared_ptr<std::byte>> CpuDevice::NewImage(int64_t bytes) { return NewPlainImage(bytes); }

absl::StatusOr<std::unique_ptr<DeviceOps>> CpuDevice::NewOps(const OpsOptions& options) {
  return CpuOps::Create(options,
                        {.threads = threads_, .cpus = cpus_, .cores_are_short = options.cores_are_short});
}

}  // namespace bellwether
