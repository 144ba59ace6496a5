#include "worker/device/gpu_weights.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/gpu/testing/random_matrix.h"

namespace bellwether {
namespace {

using gpu::RandomMatrix;
using kernels::PackedMatrix;

constexpr int kThreads = 2;

// Matrices of two blocks and a bit, with and without slices that cut groups.
std::vector<kernels::MatrixSpec> Specs() {
  std::vector<kernels::MatrixSpec> specs;
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    specs.push_back({.rows = 300, .cols = 100, .format = format});
    specs.push_back({.rows = 261,
                     .cols = 150,
                     .format = format,
                     .group = 64,
                     .has_offset = IsQuantized(format),
                     .half_scales = IsQuantized(format),
                     .first_col = 40,
                     .slices = {1, 4},
                     .slices_total = 4,
                     .slice_bounds = {0, 50, 50, 150}});
  }
  return specs;
}

// Gives rows as a checkpoint does, and remembers how they were asked for.
class Rows {
 public:
  explicit Rows(const RandomMatrix& matrix) : matrix_(matrix) {}

  absl::Status Fill(Range rows, PackedMatrix& packed) {
    EXPECT_EQ(rows.begin, next_row) << "each row once, in their order";
    EXPECT_EQ(rows.size(), packed.rows());
    next_row = rows.end;
    most_bytes = std::max(most_bytes, packed.bytes());
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      if (!matrix_.quantized()) {
        packed.SetRow(
            row - rows.begin,
            absl::MakeConstSpan(matrix_.values).subspan(row * matrix_.spec.cols, matrix_.spec.cols));
        continue;
      }
      packed.SetRow(row - rows.begin, kernels::QuantizedSpan{Of(matrix_.q, row, matrix_.spec.cols),
                                                             Of(matrix_.scales, row, matrix_.groups),
                                                             Of(matrix_.offsets, row, matrix_.groups)});
    }
    return absl::OkStatus();
  }
  auto filler() {
    return [this](Range rows, PackedMatrix& packed) { return Fill(rows, packed); };
  }

  int64_t next_row = 0, most_bytes = 0;

 private:
  template <typename T>
  static const T* Of(const std::vector<T>& values, int64_t row, int64_t each) {
    return values.empty() ? nullptr : values.data() + row * each;
  }
  const RandomMatrix& matrix_;
};

int64_t BlockBytes(const gpu::DeviceForm& form) {
  return form.block_value_bytes() + gpu::kBlockTiles * form.tile_scale_bytes() * (form.has_offset ? 2 : 1);
}

std::vector<char> Bytes(const void* at, int64_t bytes) {
  const auto* first = static_cast<const char*>(at);
  return first == nullptr ? std::vector<char>() : std::vector<char>(first, first + bytes);
}

// What `view` shows, an emulated card's memory being the host's, against the matrix that is packed whole.
void ExpectWhole(const gpu::WeightView& view, const RandomMatrix& matrix) {
  const gpu::DeviceForm form = *gpu::DeviceFormOf(matrix.spec);
  const gpu::DeviceBytes whole(matrix.packed, form);
  EXPECT_EQ(Bytes(view.values, form.value_bytes()), whole.values);
  if (matrix.quantized()) {
    EXPECT_EQ(Bytes(view.scales, form.scale_bytes()), whole.scales);
  }
  if (form.has_offset) {
    EXPECT_EQ(Bytes(view.offsets, form.scale_bytes()), whole.offsets);
  }
}

// A worker was to have room on its host for what it pins, and held its largest matrix there besides, twice
// for a moment: of BLOOM's embedding that is 7 GB, for which a pod with a small limit was killed as it
// loaded.
TEST(GpuWeights, AHostPacksALargeMatrixPieceByPiece) {
  for (const kernels::MatrixSpec& spec : Specs()) {
    SCOPED_TRACE(Name(spec.format));
    const RandomMatrix matrix(spec, /*seed=*/1);
    const int64_t block = BlockBytes(*gpu::DeviceFormOf(spec));
    // Two blocks a piece and some to spare; one; less than one, which gets memory of its own.
    for (const int64_t piece_bytes : {2 * block + block / 2, block, block / 2}) {
      const std::shared_ptr<gpu::Runtime> runtime = gpu::MakeEmulatedRuntime({});
      const auto staging = PinnedMemory::Allocate(runtime, piece_bytes);
      ASSERT_TRUE(staging.ok()) << staging.status();
      Rows rows(matrix);
      const auto on_card = GpuMatrix::Create(runtime, spec, rows.filler(), kThreads, *staging);
      ASSERT_TRUE(on_card.ok()) << on_card.status();
      EXPECT_EQ(rows.next_row, spec.rows);
      EXPECT_LE(rows.most_bytes, std::max(piece_bytes, block));
      ExpectWhole((*on_card)->view(), matrix);

      // In an image, that of the shard cache or of a layer that streams.
      std::vector<char> image(*GpuMatrix::ImageBytes(spec));
      Rows again(matrix);
      const auto placed = GpuMatrix::CreateForImage(runtime, spec);
      ASSERT_TRUE(placed.ok()) << placed.status();
      const absl::Status packed =
          (*placed)->PackTo(image.data(), spec, again.filler(), kThreads, piece_bytes);
      ASSERT_TRUE(packed.ok()) << packed;
      EXPECT_EQ(again.next_row, spec.rows);
      EXPECT_LE(again.most_bytes, std::max(piece_bytes, block));
      (*placed)->MoveTo(image.data());
      ExpectWhole((*placed)->view(), matrix);
    }
  }
}

// The loading may be cancelled between two pieces.
TEST(GpuWeights, WhatCannotBeReadIsNotPacked) {
  const std::shared_ptr<gpu::Runtime> runtime = gpu::MakeEmulatedRuntime({});
  const kernels::MatrixSpec spec = {.rows = 300, .cols = 32};
  const auto staging = *PinnedMemory::Allocate(runtime, 1);
  int pieces = 0;
  const absl::Status status = GpuMatrix::Create(
                                  runtime, spec,
                                  [&](Range, PackedMatrix&) {
                                    return ++pieces == 2 ? absl::CancelledError("enough") : absl::OkStatus();
                                  },
                                  kThreads, staging)
                                  .status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(pieces, 2);
}

}  // namespace
}  // namespace bellwether
