#include "worker/device/packed_store.h"

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/aligned_buffer.h"
#include "common/packed_row.h"
#include "common/status.h"

namespace bellwether {
namespace {

class PackedDeviceMatrix : public DeviceMatrix {
 public:
  explicit PackedDeviceMatrix(kernels::PackedMatrix packed) : packed_(std::move(packed)) {}
  int64_t rows() const override { return packed_.rows(); }
  int64_t bytes() const override { return packed_.bytes(); }
  const kernels::PackedMatrix& packed() const { return packed_; }
  kernels::PackedMatrix& packed() { return packed_; }
  void MoveTo(std::byte* data) { packed_.MoveTo(data); }

 private:
  kernels::PackedMatrix packed_;
};

class PackedStore : public WeightStore {
 public:
  explicit PackedStore(BufferArena arena) : arena_(std::move(arena)), begin_(arena_.data()) {}

  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const kernels::MatrixSpec& spec,
                                                     FillRows fill) override {
    BW_ASSIGN_OR_RETURN(std::unique_ptr<PackedDeviceMatrix> placed, Place(spec));
    BW_RETURN_IF_ERROR(fill({0, spec.rows}, placed->packed()));
    return placed;
  }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> KeepImage(kernels::MatrixSpec spec) override {
    return Place(std::move(spec));
  }
  absl::StatusOr<DeviceVector> Keep(std::vector<float> values) override {
    const std::vector<float>& kept = vectors_.emplace_back(std::move(values));
    return DeviceVector{kept.data(), static_cast<int64_t>(kept.size())};
  }

  absl::Span<std::byte> image() override { return {arena_.data(), static_cast<size_t>(arena_.size())}; }
  void MoveTo(std::byte* image) override {
    for (const auto& [matrix, offset] : matrices_)
      matrix->MoveTo(image == nullptr ? nullptr : image + offset);
  }
  void DropImage() override {
    MoveTo(nullptr);
    arena_ = BufferArena();
  }

 private:
  struct Placed {
    PackedDeviceMatrix* matrix;  // whoever has it outlives the use of this
    int64_t offset;              // in the image
  };
  absl::StatusOr<std::unique_ptr<PackedDeviceMatrix>> Place(kernels::MatrixSpec spec) {
    BW_ASSIGN_OR_RETURN(kernels::PackedMatrix matrix,
                        kernels::PackedMatrix::Create(std::move(spec), &arena_));
    const int64_t offset = matrix.data() - begin_;
    if (matrix.bytes() > 0 && (offset < 0 || offset + matrix.bytes() > arena_.size()))
      return absl::InternalError("the store was made for fewer bytes of matrices");
    auto placed = std::make_unique<PackedDeviceMatrix>(std::move(matrix));
    if (placed->bytes() > 0) matrices_.push_back({placed.get(), offset});
    return placed;
  }

  BufferArena arena_;
  const std::byte* const begin_;  // of the image at first
  std::vector<Placed> matrices_;
  std::deque<std::vector<float>> vectors_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<WeightStore>> NewPackedStore(absl::Span<const kernels::MatrixSpec> matrices) {
  int64_t bytes = 0;
  for (const kernels::MatrixSpec& spec : matrices) {
    BW_ASSIGN_OR_RETURN(const int64_t packed, kernels::PackedMatrix::PackedBytes(spec));
    bytes += RoundUp(packed, BufferArena::kAlignment);
  }
  absl::StatusOr<BufferArena> arena = BufferArena::Create(RoundUp(bytes, kImagePageBytes));
  if (!arena.ok()) return Annotate(arena.status(), "weights");
  return std::make_shared<PackedStore>(*std::move(arena));
}

std::string PackedImageForm() { return absl::StrCat("packed ", kernels::kPackedVersion); }

const kernels::PackedMatrix& PackedOf(const DeviceMatrix& matrix) {
  return static_cast<const PackedDeviceMatrix&>(matrix).packed();
}

}  // namespace bellwether
