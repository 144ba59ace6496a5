#pragma once

#include "kernels/gpu/kernel_list.h"

// The kernels for many rows, by what they take. Host code.

namespace bellwether::gpu {

struct TileKernel {
  Kernel kernel;
  int depth;  // of its stack: which of a form's parts it sums (device_matrix.h)
  // Of a block.
  int rows, threads, shared_bytes;
};

// By wgmma (tile_matmul.h): blocks of 128 rows, or 64 where there are no more. Of fp32 no more fit into
// registers.
inline TileKernel WgmmaTile(WeightFormat format, int rows, int depth) {
  const bool few = rows <= 64 || format == WeightFormat::kF32;
  Kernel kernel = few ? Kernel::tile_bf16_64_1 : Kernel::tile_bf16_128_1;
  if (depth == 2) kernel = few ? Kernel::tile_bf16_64_2 : Kernel::tile_bf16_128_2;
  if (format == WeightFormat::kInt8) kernel = few ? Kernel::tile_int8_64_1 : Kernel::tile_int8_128_1;
  if (format == WeightFormat::kInt4) kernel = few ? Kernel::tile_int4_64_1 : Kernel::tile_int4_128_1;
  if (format == WeightFormat::kF16) kernel = few ? Kernel::tile_fp16_64_1 : Kernel::tile_fp16_128_1;
  if (format == WeightFormat::kF32) kernel = Kernel::tile_fp32_64_1;
  const int tile_rows = few ? 64 : 128;
  return {kernel, depth, tile_rows, kTileMatmulThreads, TileMatmulSharedBytes(format, tile_rows)};
}

// By mma (mma_tile_matmul.h).
inline TileKernel MmaTile(WeightFormat format, int depth) {
  Kernel kernel = depth == 2 ? Kernel::mma_tile_bf16_2 : Kernel::mma_tile_bf16_1;
  if (format == WeightFormat::kInt8) kernel = Kernel::mma_tile_int8_1;
  if (format == WeightFormat::kInt4) kernel = Kernel::mma_tile_int4_1;
  if (format == WeightFormat::kF16) kernel = Kernel::mma_tile_fp16_1;
  if (format == WeightFormat::kF32) kernel = Kernel::mma_tile_fp32_1;
  return {kernel, depth, kMmaTileRows, kMmaTileThreads, MmaTileSharedBytes(format)};
}

}  // namespace bellwether::gpu
