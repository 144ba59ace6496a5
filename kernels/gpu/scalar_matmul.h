#pragma once

// y = x W^T with fp32 or fp16 weights and fp32 activations: right, and slow. The same segments as everywhere,
// each a chain of fused multiply-adds from 0 in ascending columns.

#include "kernels/gpu/simt.h"
#include "kernels/gpu/stream_matmul.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

struct ScalarMatmulArgs {
  WeightView weights;  // tiles of 32 outputs; units are columns
  const float* x = nullptr;
  int64_t stride = 0;
  float* y = nullptr;           // root r, row n, output m: y[r * root_stride + n * y_stride + m]
  const float* bias = nullptr;  // [outputs] or null
  int64_t y_stride = 0, root_stride = 0;
  int32_t rows = 0;
  bool half = false;
  uint8_t unused[3] = {};
};
constexpr int64_t ScalarMatmulSharedBytes(int segments) {
  return static_cast<int64_t>(segments) * kScalarTileRows * 4;
}

// A lane an output; warps take segments. Grid: x: tiles, y: rows.
BW_DEVICE void ScalarMatmul(const ScalarMatmulArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const WeightTable& table = args.weights.table;
  auto* sums = reinterpret_cast<float*>(SharedMemory());
  const int64_t tile_begin = static_cast<int64_t>(BlockX()) * table.units * kScalarTileRows + Lane();
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    const float* x = args.x + row * args.stride;
    for (int s = Warp(); s < table.segment_count; s += BlockThreads() / 32) {
      float sum = 0;
      const int end = FirstUnit(table, s + 1);
      for (int column = FirstUnit(table, s); column < end; ++column) {
        const int64_t index = tile_begin + static_cast<int64_t>(column) * kScalarTileRows;
        const float weight =
            args.half ? HalfToFloat(Load(static_cast<const uint16_t*>(args.weights.values) + index))
                      : Load(static_cast<const float*>(args.weights.values) + index);
        sum = Fma(weight, Load(x + column), sum);
      }
      sums[s * kScalarTileRows + Lane()] = sum;
    }
    SyncBlock();
    const int output = BlockX() * kScalarTileRows + Lane();
    if (Warp() == 0 && output < args.weights.rows) {
      for (int r = 0; r < table.root_count; ++r) {
        const Root root = Load(&table.roots[r]);
        float sum = SumRoot(table, root, sums + Lane(), kScalarTileRows);
        if (args.bias != nullptr) sum += Load(args.bias + output);
        Store(args.y + r * args.root_stride + row * args.y_stride + output, sum);
      }
    }
    SyncBlock();
  }
}

}  // namespace bellwether::gpu
