#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/device/device.h"
#include "worker/device/packed_store.h"

namespace bellwether {

// The threads and the memory of this machine. Device pointers are host pointers, and an operation is done
// when it returns.
class CpuDevice : public Device {
 public:
  // `cpus`: of the threads; empty: wherever the system likes. The thread that uses the ops is the first of
  // them and sees to its CPU itself.
  explicit CpuDevice(int threads, std::vector<int> cpus = {});

  std::string Describe() const override;
  int64_t layer_rows_max() const override;
  absl::StatusOr<std::shared_ptr<WeightStore>> NewWeightStore(absl::Span<const kernels::MatrixSpec> matrices,
                                                              WeightHome home, bool with_image) override;
  std::string image_form() const override;
  absl::StatusOr<std::shared_ptr<std::byte>> NewImage(int64_t bytes) override;
  bool keeps_packed_images() const override { return true; }
  absl::StatusOr<std::unique_ptr<DeviceOps>> NewOps(const OpsOptions& options) override;

 private:
  const int threads_;
  const std::vector<int> cpus_;
};

}  // namespace bellwether
