#pragma once

#include "kernels/gpu/attention.h"
#include "kernels/gpu/store_kv.h"

namespace bellwether::gpu {

// The same contract in fp32 for caches of fp32 and fp16, and for heads too large for fragments in registers:
// scalar dot products along the head dimension, weights unrounded, sums along the positions in ascending
// order. A warp a column. Grid: items (of one column each).
BW_DEVICE float LoadElement(StoreKvArgs::Type type, const char* head, int index) {
  if (type == StoreKvArgs::kF32) return Load(reinterpret_cast<const float*>(head) + index);
  const uint16_t bits = Load(reinterpret_cast<const uint16_t*>(head) + index);
  return type == StoreKvArgs::kBF16 ? BitsFloat(static_cast<uint32_t>(bits) << 16) : HalfToFloat(bits);
}

struct ScalarAttentionArgs {
  AttentionArgs common;
  StoreKvArgs::Type type = StoreKvArgs::kF32;
  int32_t unused = 0;
};
constexpr int kScalarHeadDims = 16;  // values of a head a lane keeps: head sizes up to 512

BW_DEVICE void AttendScalar(const ScalarAttentionArgs& scalar_args) {
  const AttentionArgs& args = scalar_args.common;
  LetNextKernelStart();
  WaitForPreviousKernel();
  const AttentionItem item = Load(args.items + BlockX());
  const int row = item.row + item.column_begin / item.heads,
            head = item.head + item.column_begin % item.heads;
  const int last_position = item.position + item.column_begin / item.heads;
  const float* q = args.query + row * args.stride + static_cast<int64_t>(head) * args.head_dim;
  const float slope = args.slopes != nullptr ? Load(args.slopes + head) : 0.0f;
  float all_m = -kInfinity, all_l = 0, all_o[kScalarHeadDims];
  for (int j = 0; j < kScalarHeadDims; ++j) all_o[j] = 0;
  for (int tile = 0; tile * kAttentionTile <= last_position; ++tile) {
    const char* blocks[2] = {nullptr, nullptr};
    float s[2];  // of positions lane and lane + 32 of the tile
    for (int b = 0; b < 2; ++b) {
      s[b] = -kInfinity;
      const int position = tile * kAttentionTile + b * kKvBlockPositions;
      if (position > last_position) continue;
      const int block = Load(args.tables + item.table + position / kKvBlockPositions);
      blocks[b] = args.cache + block * args.block_stride + item.kv_head * args.head_bytes;
      if (position + Lane() > last_position) continue;
      float dot = 0;
      for (int d = 0; d < args.head_dim; ++d) {
        dot = Fma(
            Load(q + d),
            LoadElement(scalar_args.type, blocks[b], KeyIndex(scalar_args.type, Lane(), d, args.head_dim)),
            dot);
      }
      const float scaled = dot * args.scale;
      s[b] = args.slopes != nullptr ? Fma(slope, static_cast<float>(position + Lane()), scaled) : scaled;
    }
    float m = Max(s[0], s[1]);
    for (int mask = 1; mask < 32; mask *= 2) m = Max(m, ShuffleXor(m, mask));
    const float p[2] = {Exp(s[0] - m), Exp(s[1] - m)};
    float l = 0, o[kScalarHeadDims];
    for (int j = 0; j < kScalarHeadDims; ++j) o[j] = 0;
    for (int i = 0; i < kAttentionTile; ++i) {
      const float weight = Shuffle(p[i / 32], i % 32);
      if (tile * kAttentionTile + i > last_position) continue;
      l += weight;
      BW_UNROLL
      for (int j = 0; j < kScalarHeadDims; ++j) {
        const int d = j * 32 + Lane();
        if (d >= args.head_dim) continue;
        o[j] = Fma(weight,
                   LoadElement(scalar_args.type, blocks[i / 32],
                               ValueIndex(scalar_args.type, i % 32, d, args.head_dim)),
                   o[j]);
      }
    }
    const float highest = Max(all_m, m);
    const float before = Exp(all_m - highest), now = Exp(m - highest);
    all_m = highest;
    all_l = Fma(l, now, all_l * before);
    BW_UNROLL
    for (int j = 0; j < kScalarHeadDims; ++j) all_o[j] = Fma(o[j], now, all_o[j] * before);
  }
  float* out = args.out + row * args.stride + static_cast<int64_t>(head) * args.head_dim;
  BW_UNROLL
  for (int j = 0; j < kScalarHeadDims; ++j) {
    if (j * 32 + Lane() < args.head_dim) Store(out + j * 32 + Lane(), all_o[j] / all_l);
  }
}

}  // namespace bellwether::gpu
