#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/gpu/runtime.h"
#include "model/row_limits.h"
#include "worker/device/device.h"
#include "worker/device/gpu_weights.h"

namespace bellwether {

// A GPU, or the emulator of one: the same code on either runtime. Epochs and shards of one worker use it one
// after the other, from one thread at a time.
class GpuDevice : public Device {
 public:
  // `threads` of the host bring weights into the device's form. `host_free_bytes`: of the host's memory, of
  // which images that no plan counts take a part at most; null: whatever they like.
  GpuDevice(std::shared_ptr<gpu::Runtime> runtime, int threads,
            std::function<int64_t()> host_free_bytes = nullptr)
      : runtime_(std::move(runtime)), threads_(threads), host_free_bytes_(std::move(host_free_bytes)) {}

  std::string Describe() const override;
  int64_t layer_rows_max() const override { return kGpuLayerRowsMax; }
  absl::StatusOr<std::shared_ptr<WeightStore>> NewWeightStore(absl::Span<const kernels::MatrixSpec> matrices,
                                                              WeightHome home, bool with_image) override;
  std::string image_form() const override;
  absl::StatusOr<std::shared_ptr<std::byte>> NewImage(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceOps>> NewOps(const OpsOptions& options) override;
  // The runtime keeps its first error, and so does a CUDA context.
  absl::Status Health() override { return runtime_->Synchronize(); }

  gpu::Runtime& runtime() { return *runtime_; }

 private:
  const std::shared_ptr<gpu::Runtime> runtime_;
  const int threads_;
  const std::function<int64_t()> host_free_bytes_;
  std::weak_ptr<const PinnedMemory> staging_;  // of the stores there are
};

}  // namespace bellwether
