#include "worker/device/gpu_device.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/format_bytes.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "worker/device/gpu_ops.h"

namespace bellwether {
namespace {

// Of weights that stay on a card: other workers of its host may be loading too.
constexpr int64_t kImagesAtOnce = 4;

}  // namespace

std::string GpuDevice::Describe() const {
  const gpu::DeviceInfo& info = runtime_->info();
  return absl::StrCat("cuda:", info.index, " (", info.name, ")");
}

absl::StatusOr<std::shared_ptr<WeightStore>> GpuDevice::NewWeightStore(
    absl::Span<const kernels::MatrixSpec> matrices, WeightHome home, bool with_image) {
  if (home == WeightHome::kDevice && !with_image) {
    std::shared_ptr<const PinnedMemory> staging = staging_.lock();
    if (staging == nullptr) {
      BW_ASSIGN_OR_RETURN(staging, GpuWeightStore::NewStaging(runtime_));
      staging_ = staging;
    }
    return std::make_shared<GpuWeightStore>(runtime_, threads_, std::move(staging));
  }
  BW_ASSIGN_OR_RETURN(const int64_t bytes, GpuImageStore::ImageBytes(matrices));
  if (home == WeightHome::kDevice && host_free_bytes_ != nullptr) {
    if (const int64_t free = host_free_bytes_(); bytes > free / kImagesAtOnce) {
      return absl::ResourceExhaustedError(
          absl::StrCat("an image of ", FormatBytes(static_cast<double>(bytes)),
                       " is too much for a host with ", FormatBytes(static_cast<double>(free)), " free"));
    }
  }
  // One that goes to a drive or to the device is packed and dropped: it need not be pinned.
  absl::StatusOr<std::shared_ptr<std::byte>> image =
      home == WeightHome::kHost ? NewImage(bytes) : NewPlainImage(bytes);
  if (!image.ok()) return Annotate(image.status(), "weights in the host's memory");
  return std::make_shared<GpuImageStore>(runtime_, threads_, *std::move(image), bytes);
}

std::string GpuDevice::image_form() const { return absl::StrCat("gpu ", gpu::kDeviceFormVersion); }

absl::StatusOr<std::shared_ptr<std::byte>> GpuDevice::NewImage(int64_t bytes) {
  BW_ASSIGN_OR_RETURN(PinnedMemory memory, PinnedMemory::Allocate(runtime_, RoundUp(bytes, kImagePageBytes)));
  const auto owner = std::make_shared<PinnedMemory>(std::move(memory));
  if (owner->bytes() > 0) std::memset(owner->data(), 0, owner->bytes());
  return std::shared_ptr<std::byte>(owner, reinterpret_cast<std::byte*>(owner->data()));
}

absl::StatusOr<std::unique_ptr<DeviceOps>> GpuDevice::NewOps(const OpsOptions& options) {
  if (options.kernel_level != runtime_->info().numeric_class) {
    return absl::FailedPreconditionError(absl::StrCat(
        Describe(), " computes as ", runtime_->info().numeric_class, ", not as ", options.kernel_level));
  }
  return GpuOps::Create(runtime_, options, layer_rows_max(), threads_);
}

}  // namespace bellwether
