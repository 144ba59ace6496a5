#pragma once

#include <memory>
#include <vector>

#include "kernels/gpu/device_matrix.h"
#include "kernels/gpu/runtime.h"
#include "worker/device/device.h"

namespace bellwether {

// Memory of a GPU that is given back with this. Movable only.
class GpuMemory {
 public:
  static absl::StatusOr<GpuMemory> Allocate(std::shared_ptr<gpu::Runtime> runtime, int64_t bytes);
  GpuMemory() = default;
  GpuMemory(GpuMemory&& other) noexcept { *this = std::move(other); }
  GpuMemory& operator=(GpuMemory&& other) noexcept;
  ~GpuMemory();

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<gpu::Runtime> runtime_;
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Pinned memory of the host, likewise.
class PinnedMemory {
 public:
  static absl::StatusOr<PinnedMemory> Allocate(std::shared_ptr<gpu::Runtime> runtime, int64_t bytes);
  PinnedMemory() = default;
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory();

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<gpu::Runtime> runtime_;
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

// A matrix in the memory of a GPU. Its tables stay there; so do its values and scales, or they are part of an
// image that comes and goes.
class GpuMatrix : public DeviceMatrix {
 public:
  // What values and scales take in an image.
  static absl::StatusOr<int64_t> ImageBytes(const kernels::MatrixSpec& spec);
  // One whose values and scales are nowhere yet.
  static absl::StatusOr<std::unique_ptr<GpuMatrix>> CreateForImage(
      const std::shared_ptr<gpu::Runtime>& runtime, const kernels::MatrixSpec& spec);
  // Packs on `threads` threads, a piece of at most `piece_bytes` (or a block) at a time, to `image`
  // [ImageBytes], which is full of zeros.
  absl::Status PackTo(char* image, const kernels::MatrixSpec& spec, WeightStore::FillRows fill, int threads,
                      int64_t piece_bytes) const;
  // From now on its values and scales are at `image`, in the GPU's memory; null: nowhere.
  void MoveTo(const char* image);

  // The same by way of `staging`, of whose size the pieces are.
  static absl::StatusOr<std::unique_ptr<GpuMatrix>> Create(const std::shared_ptr<gpu::Runtime>& runtime,
                                                           const kernels::MatrixSpec& spec,
                                                           WeightStore::FillRows fill, int threads,
                                                           const PinnedMemory& staging);

  // Random weights for measurements, made on the card.
  static absl::StatusOr<std::unique_ptr<GpuMatrix>> CreateRandom(const std::shared_ptr<gpu::Runtime>& runtime,
                                                                 const kernels::MatrixSpec& spec,
                                                                 uint64_t seed);

  int64_t rows() const override { return form_.rows; }
  int64_t bytes() const override { return form_.value_bytes() + all_scale_bytes() + tables_.bytes(); }

  const gpu::DeviceForm& form() const { return form_; }
  int group() const { return group_; }
  const gpu::WeightView& view() const { return view_; }
  const gpu::ColumnStep* steps() const { return steps_; }
  const gpu::ColumnStep* set_columns() const { return set_columns_; }
  // For tile_matmul with a stack of `depth` sums, 1 or 2.
  const gpu::Part* parts(int depth) const { return parts_[depth - 1]; }

 private:
  GpuMatrix() = default;
  static absl::StatusOr<std::unique_ptr<GpuMatrix>> Reserve(const std::shared_ptr<gpu::Runtime>& runtime,
                                                            const kernels::MatrixSpec& spec);
  int64_t all_scale_bytes() const { return form_.scale_bytes() * (form_.has_offset ? 2 : 1); }
  void PlaceAt(const char* values, const char* scales);
  absl::Status CopyTables(const std::shared_ptr<gpu::Runtime>& runtime);
  absl::Status CopyPieces(gpu::Runtime& runtime, const kernels::MatrixSpec& spec, WeightStore::FillRows fill,
                          int threads, const PinnedMemory& staging);

  gpu::DeviceForm form_;
  int group_ = 0;
  gpu::WeightView view_;
  const gpu::ColumnStep* steps_ = nullptr;
  const gpu::ColumnStep* set_columns_ = nullptr;
  const gpu::Part* parts_[2] = {};
  GpuMemory values_, scales_, tables_;  // scales_: the offsets behind the scales
};

class GpuWeightStore : public WeightStore {
 public:
  // By way of `staging`, which stores may share that are not filled at once.
  GpuWeightStore(std::shared_ptr<gpu::Runtime> runtime, int threads,
                 std::shared_ptr<const PinnedMemory> staging)
      : runtime_(std::move(runtime)), threads_(threads), staging_(std::move(staging)) {}
  static absl::StatusOr<std::shared_ptr<const PinnedMemory>> NewStaging(
      const std::shared_ptr<gpu::Runtime>& runtime);

  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const kernels::MatrixSpec& spec, FillRows fill) override;
  absl::StatusOr<DeviceVector> Keep(std::vector<float> values) override;
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> KeepImage(kernels::MatrixSpec spec) override;

 protected:
  const std::shared_ptr<gpu::Runtime> runtime_;
  const int threads_;

 private:
  const std::shared_ptr<const PinnedMemory> staging_;
  std::vector<GpuMemory> vectors_;
};

// Matrices that lie in one image on the host and are brought to slots of the GPU, or settle in its memory.
class GpuImageStore : public GpuWeightStore {
 public:
  // `image`: zeros.
  GpuImageStore(std::shared_ptr<gpu::Runtime> runtime, int threads, std::shared_ptr<std::byte> image,
                int64_t bytes)
      : GpuWeightStore(std::move(runtime), threads, nullptr), image_(std::move(image)), bytes_(bytes) {}
  // Of an image of matrices like these.
  static absl::StatusOr<int64_t> ImageBytes(absl::Span<const kernels::MatrixSpec> matrices);

  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const kernels::MatrixSpec& spec, FillRows fill) override;
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> KeepImage(kernels::MatrixSpec spec) override;
  absl::Span<std::byte> image() override;
  std::shared_ptr<const void> image_owner() const override { return image_; }
  void MoveTo(std::byte* image) override;
  void DropImage() override;
  absl::Status Settle() override;

 private:
  struct Placed {
    GpuMatrix* matrix;  // whoever has it outlives the use of this
    int64_t offset;     // in the image
  };
  absl::StatusOr<std::unique_ptr<GpuMatrix>> Place(const kernels::MatrixSpec& spec);

  std::shared_ptr<std::byte> image_;  // null: dropped
  const int64_t bytes_;
  int64_t used_ = 0;
  std::vector<Placed> matrices_;
  GpuMemory settled_;
};

}  // namespace bellwether
