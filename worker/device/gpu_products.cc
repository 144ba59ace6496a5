// Products of GpuOps: which kernel takes them.

#include <algorithm>
#include <bit>

#include "common/packed_row.h"
#include "kernels/gpu/tile_kernels.h"
#include "worker/device/gpu_ops.h"

namespace bellwether {
namespace {

using gpu::Kernel;
using gpu::OperandOrder;
using gpu::SetEnds;

Kernel StreamKernel(const gpu::DeviceForm& form, int tiles_m, int tiles_n) {
  if (form.format == WeightFormat::kBF16)
    return tiles_n == 1 ? Kernel::stream_bf16_1x1 : Kernel::stream_bf16_1x2;
  if (form.format == WeightFormat::kF16)
    return tiles_n == 1 ? Kernel::stream_fp16_1x1 : Kernel::stream_fp16_1x2;
  if (form.format == WeightFormat::kF32)
    return tiles_n == 1 ? Kernel::stream_fp32_1x1 : Kernel::stream_fp32_1x2;
  const bool int8 = form.format == WeightFormat::kInt8;
  switch (gpu::SetEndsOf(form.format, form.set_steps)) {
    case SetEnds::kUnits:
      if (tiles_n == 2) return int8 ? Kernel::stream_int8_units_1x2 : Kernel::stream_int4_units_1x2;
      if (tiles_m == 2) return int8 ? Kernel::stream_int8_units_2x1 : Kernel::stream_int4_units_2x1;
      return int8 ? Kernel::stream_int8_units_1x1 : Kernel::stream_int4_units_1x1;
    case SetEnds::kEach:
      if (tiles_n == 2) return int8 ? Kernel::stream_int8_each_1x2 : Kernel::stream_int4_each_1x2;
      if (tiles_m == 2) return int8 ? Kernel::stream_int8_each_2x1 : Kernel::stream_int4_each_2x1;
      return int8 ? Kernel::stream_int8_each_1x1 : Kernel::stream_int4_each_1x1;
    case SetEnds::kHalves:
      if (int8) return Kernel::stream_int8_halves_1x1;
      if (tiles_n == 2) return Kernel::stream_int4_halves_1x2;
      return tiles_m == 2 ? Kernel::stream_int4_halves_2x1 : Kernel::stream_int4_halves_1x1;
    case SetEnds::kQuarters:
      break;
  }
  return Kernel::stream_int4_quarters_1x1;
}

// Whether the sums of 2, 4 or 8 parts are added halves first.
bool Balanced(const std::vector<uint8_t>& additions, size_t roots) {
  const size_t parts = additions.size();
  if (roots != 1 || (parts != 2 && parts != 4 && parts != 8)) return false;
  for (size_t i = 0; i < parts; ++i) {
    if (additions[i] != std::countr_one(i)) return false;
  }
  return true;
}

gpu::TileKernel TileKernelFor(const gpu::DeviceInfo& card, WeightFormat format, int64_t rows, int depth) {
  return card.hopper ? gpu::WgmmaTile(format, static_cast<int>(rows), depth) : gpu::MmaTile(format, depth);
}

}  // namespace

void GpuOps::Multiply(ConstRows x, absl::Span<const Product> products) {
  if (x.rows == 0) return;
  for (size_t first = 0; first < products.size();) {
    const gpu::DeviceForm& form = Of(*products[first].weights).form();
    size_t last = first + 1;
    while (last < products.size() && last - first < gpu::kProductsMax &&
           Of(*products[last].weights).form().format == form.format &&
           Of(*products[last].weights).form().has_offset == form.has_offset &&
           SamePreparation(form, Of(*products[last].weights).form())) {
      ++last;
    }
    MultiplyAlike(x, products.subspan(first, last - first));
    first = last;
  }
}

void GpuOps::MultiplyAlike(ConstRows x, absl::Span<const Product> products) {
  const GpuMatrix& first = Of(*products[0].weights);
  Prepare(x, first);
  ByTiles(x.rows, first.form().format) ? Tile(x.rows, first, products) : Stream(x.rows, first, products);
}

void GpuOps::Prepare(ConstRows x, const GpuMatrix& matrix) {
  const gpu::DeviceForm& form = matrix.form();
  const int64_t packed = form.packed_cols();
  const int limbs = gpu::Limbs(form.format);
  if (limbs > limbs_) return Fail("a product of more limbs than was reckoned with");
  if (RoundUp(x.rows, gpu::kPieceRows) * packed * 2 > limb_bytes() ||
      RoundUp(x.rows, 8) * form.sets * 4 > set_sums_.bytes()) {
    return Fail("a product of wider rows than was reckoned with");
  }
  const bool there = prepared_.data == x.data && prepared_.rows == x.rows && prepared_.cols == packed &&
                     form.packed_columns_are_columns;
  if (!there) {
    prepared_ = {};
    LaunchColumns(Kernel::prepare, packed / 2, x.rows,
                  gpu::PrepareArgs{.x = x.data,
                                   .stride = x.stride,
                                   .rows = static_cast<int32_t>(x.rows),
                                   .cols = static_cast<int32_t>(form.cols),
                                   .steps = form.packed_columns_are_columns ? nullptr : matrix.steps(),
                                   .out = OperandOf(x.rows, packed, limbs)});
  }
  if (form.has_offset) {
    LaunchColumns(Kernel::set_sums, form.sets, x.rows,
                  gpu::SetSumsArgs{.x = x.data,
                                   .stride = x.stride,
                                   .rows = static_cast<int32_t>(x.rows),
                                   .sets = form.sets,
                                   .columns = matrix.set_columns(),
                                   .sums = reinterpret_cast<float*>(set_sums_.data())});
  }
}

void GpuOps::Stream(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products) {
  const gpu::DeviceForm& form = first.form();
  const int segments = static_cast<int>(form.segments.size());
  int64_t tiles = 0;
  for (const Product& product : products) tiles += Of(*product.weights).form().tiles;
  if (tiles == 0) return;
  const bool wide = form.set_steps > 1 || !IsQuantized(form.format);  // groups of 16 are rare
  const bool two_fit = gpu::StreamMatmulSharedBytes(segments, 2, 1) <= runtime_->info().shared_bytes;
  const int tiles_n = rows > 8 && wide && two_fit ? 2 : 1;
  // Two tiles share what a warp does for x, where there are enough of them to keep every multiprocessor at
  // work.
  const int64_t multiprocessors = runtime_->info().multiprocessors;
  const int tiles_m =
      IsQuantized(form.format) && wide && tiles_n == 1 && two_fit && tiles >= 6 * multiprocessors ? 2 : 1;
  const int64_t blocks = Blocks(tiles, tiles_m);
  const Kernel kernel = StreamKernel(form, tiles_m, tiles_n);
  const int most_warps = gpu::kKernels[static_cast<int>(kernel)].threads_max / 32;
  const int warps = std::min({segments, most_warps, blocks >= multiprocessors * 3 / 2 ? 8 : 16});
  for (int64_t row = 0; row < rows; row += 8 * tiles_n) {
    gpu::StreamMatmulArgs args{
        .output_count = static_cast<int32_t>(products.size()),
        .rows = static_cast<int32_t>(std::min<int64_t>(rows - row, 8 * tiles_n)),
        .warp_segments = static_cast<int32_t>(Blocks(segments, warps)),
        .x = reinterpret_cast<const gpu::Words4*>(operand_.data()) + row / 8 * form.packed_cols(),
        .limb_stride = limb_bytes() / static_cast<int64_t>(sizeof(gpu::Words4)),
        .set_sums = reinterpret_cast<const float*>(set_sums_.data()) + row * form.sets};
    int64_t grid = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const Product& product = products[i];
      args.outputs[i] = {.weights = Of(*product.weights).view(),
                         .y = product.y + row * product.stride,
                         .bias = product.bias.data,
                         .root_stride = product.root_stride,
                         .stride = product.stride};
      grid += Blocks(Of(*product.weights).form().tiles, tiles_m);
    }
    Launch(kernel, {grid}, warps * 32, gpu::StreamMatmulSharedBytes(segments, tiles_m, tiles_n), args);
  }
}

void GpuOps::Tile(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products) {
  const gpu::DeviceForm& form = first.form();
  const size_t roots = form.roots.size();
  // A deeper stack needs fewer parts, and more registers.
  const int depth =
      form.format == WeightFormat::kBF16 && form.parts[1].parts.size() < form.parts[0].parts.size() ? 2 : 1;
  const size_t parts = form.parts[depth - 1].parts.size();
  if (parts != roots) {
    for (const Product& product : products) {
      for (int64_t row = 0; row < rows; row += kPartRowsMax) {
        TileParts(row, std::min(rows - row, kPartRowsMax), Of(*product.weights), product, depth);
      }
    }
    return;
  }
  gpu::TileMatmulArgs args{.output_count = static_cast<int32_t>(products.size()),
                           .rows = static_cast<int32_t>(rows),
                           .parts = first.parts(depth),
                           .x = operand_.data(),
                           .limb_stride = limb_bytes(),
                           .set_sums = reinterpret_cast<const float*>(set_sums_.data())};
  int64_t grid = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    args.outputs[i] = {.weights = Of(*products[i].weights).view(),
                       .y = products[i].y,
                       .bias = products[i].bias.data,
                       .part_stride = products[i].root_stride,
                       .stride = products[i].stride};
    grid += Blocks(Of(*products[i].weights).form().tiles, gpu::kBlockTiles);
  }
  if (grid == 0) return;
  const gpu::TileKernel tile = TileKernelFor(runtime_->info(), form.format, rows, depth);
  Launch(tile.kernel, {Blocks(rows, tile.rows), grid, static_cast<int64_t>(parts)}, tile.threads,
         tile.shared_bytes, args);
}

void GpuOps::TileParts(int64_t row, int64_t rows, const GpuMatrix& matrix, const Product& product,
                       int depth) {
  const gpu::DeviceForm& form = matrix.form();
  const gpu::DeviceForm::PartSums& sums = form.parts[depth - 1];
  const auto parts = static_cast<int64_t>(sums.parts.size());
  if (form.tiles == 0) return;
  if (parts * rows * form.rows * 4 > parts_.bytes())
    return Fail("a product of more parts than was reckoned with");
  auto* partial = reinterpret_cast<float*>(parts_.data());
  gpu::TileMatmulArgs args{.output_count = 1,
                           .rows = static_cast<int32_t>(rows),
                           .parts = matrix.parts(depth),
                           .x = operand_.data() + row * form.packed_cols() * 2,
                           .limb_stride = limb_bytes(),
                           .set_sums = reinterpret_cast<const float*>(set_sums_.data()) + row * form.sets};
  args.outputs[0] = {
      .weights = matrix.view(), .y = partial, .part_stride = rows * form.rows, .stride = form.rows};
  const gpu::TileKernel tile = TileKernelFor(runtime_->info(), form.format, rows, depth);
  Launch(tile.kernel, {Blocks(rows, tile.rows), Blocks(form.tiles, gpu::kBlockTiles), parts}, tile.threads,
         tile.shared_bytes, args);
  gpu::SumTreeArgs tree{.leaves = partial,
                        .leaf_stride = rows * form.rows,
                        .stride = form.rows,
                        .out = product.y + row * product.stride,
                        .root_stride = product.root_stride,
                        .out_stride = product.stride,
                        .bias = product.bias.data,
                        .rows = static_cast<int32_t>(rows),
                        .cols = static_cast<int32_t>(form.rows),
                        .leaf_count = static_cast<int32_t>(parts)};
  std::copy(sums.additions.begin(), sums.additions.end(), tree.additions);
  std::copy(sums.ends.begin(), sums.ends.end(), tree.ends);
  tree.balanced = Balanced(sums.additions, form.roots.size());
  LaunchColumns(Kernel::sum_tree, form.rows, rows, tree);
}

}  // namespace bellwether
