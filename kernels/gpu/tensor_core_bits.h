#pragma once

// What this card's tensor cores compute, to be compared with tensor_core.h: one k16 step by mma.sync, or by
// wgmma where the card has that.

#include "kernels/gpu/simt.h"

namespace bellwether::gpu {

// A case: 64 x 16 of A, 16 x 8 of B (its columns stand as rows) and 64 x 8 accumulators.
struct TensorCoreCase {
  uint16_t a[64][16];
  uint16_t b[8][16];
  float c[64][8];
};
struct TensorCoreResult {
  float values[64][8];
};
struct TensorCoreBitsArgs {
  const TensorCoreCase* cases = nullptr;
  TensorCoreResult* results = nullptr;
  int32_t count = 0;
  int32_t unused = 0;
};
constexpr int kTensorCoreBitsSharedBytes = 256;

// Grid: any; threads: 128.
template <bool kByWgmma>
BW_DEVICE void TensorCoreBits(const TensorCoreBitsArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  auto* shared = reinterpret_cast<uint16_t*>(SharedMemory());
  const int w = Warp(), g = Lane() / 4, t = Lane() % 4;
  for (int i = BlockX(); i < args.count; i += GridX()) {
    const TensorCoreCase* from = args.cases + i;
    TensorCoreResult* to = args.results + i;
    const auto pair = [](const uint16_t* at) { return Load(reinterpret_cast<const uint32_t*>(at)); };
    const int row = w * 16 + g;
    const uint32_t a[4] = {pair(&from->a[row][2 * t]), pair(&from->a[row + 8][2 * t]),
                           pair(&from->a[row][2 * t + 8]), pair(&from->a[row + 8][2 * t + 8])};
    float sums[4];
    for (int j = 0; j < 4; ++j) sums[j] = Load(&from->c[row + j / 2 * 8][2 * t + j % 2]);
    if constexpr (kByWgmma) {
      SyncBlock();
      const int column = ThreadIndex() / 16, k = ThreadIndex() % 16;
      shared[k / 8 * 64 + column * 8 + k % 8] = Load(&from->b[column][k]);
      FenceAsyncShared();
      SyncBlock();
      WgmmaFence();
      Wgmma<8>(sums, a, SharedTile{shared, 128, 128}, true);
      WgmmaCommit();
      WgmmaWait<0>();
    } else {
      const uint32_t b[2] = {pair(&from->b[g][2 * t]), pair(&from->b[g][2 * t + 8])};
      Mma(sums, a, b);
    }
    for (int j = 0; j < 4; ++j) Store(&to->values[row + j / 2 * 8][2 * t + j % 2], sums[j]);
  }
}

}  // namespace bellwether::gpu
