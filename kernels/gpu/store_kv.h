#pragma once

#include "kernels/gpu/attention.h"
#include "kernels/gpu/simt.h"

namespace bellwether::gpu {

// RMSNorm on each query and key head, where there is one, and RoPE, then keys and values to the cache.
struct StoreKvArgs {
  float* query = nullptr;  // [rows][query_stride], in place
  const float* key = nullptr;
  const float* value = nullptr;  // [rows][kv_stride]
  int64_t query_stride = 0, kv_stride = 0;
  const float* query_norm = nullptr;  // [head_dim]; null: not normalised
  const float* key_norm = nullptr;    // likewise; with RoPE only
  const float* cosines = nullptr;     // [position][head_dim / 2]; null without RoPE
  const float* sines = nullptr;
  const int32_t* positions = nullptr;  // [rows]
  const int32_t* blocks = nullptr;     // [rows]: the KV block that holds the row's position
  char* cache = nullptr;               // as AttentionArgs
  int64_t block_stride = 0;
  int64_t head_bytes = 0;
  int32_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;
  enum Type : int32_t { kBF16, kF32, kF16 } type = kBF16;
  float epsilon = 0;  // of the norms
};

// Where (position, d) of a head's block lies, counted in elements. bf16: as fragments; else keys
// [head_dim][32], values [32][head_dim].
BW_DEVICE int KeyIndex(StoreKvArgs::Type type, int position, int d, int head_dim) {
  if (type != StoreKvArgs::kBF16) return d * kKvBlockPositions + position;
  const int row = position % 16, column = d % 16;
  const int word = ((position / 16 * HeadSteps(head_dim) + d / 16) * 32 + row % 8 * 4 + column % 8 / 2) * 4 +
                   row / 8 + column / 8 * 2;
  return word * 2 + column % 2;
}
BW_DEVICE int ValueIndex(StoreKvArgs::Type type, int position, int d, int head_dim) {
  if (type != StoreKvArgs::kBF16) return kKvBlockPositions * head_dim + position * head_dim + d;
  const int row = d % 16, column = position % 16;
  const int word =
      (((2 + position / 16) * HeadSteps(head_dim) + d / 16) * 32 + row % 8 * 4 + column % 8 / 2) * 4 +
      row / 8 + column / 8 * 2;
  return word * 2 + column % 2;
}

BW_DEVICE void StoreElement(StoreKvArgs::Type type, char* head, int index, float value) {
  if (type == StoreKvArgs::kF32) {
    Store(reinterpret_cast<float*>(head) + index, value);
  } else {
    const uint32_t bits = type == StoreKvArgs::kBF16 ? PackBF16(value, 0.0f) & 0xffffu : FloatToHalf(value);
    Store(reinterpret_cast<uint16_t*>(head) + index, static_cast<uint16_t>(bits));
  }
}

// Two neighbouring values of a head: of keys in fragments they are one word.
BW_DEVICE void StoreKeyPair(const StoreKvArgs& args, char* cache, int position, int d,
                            const float (&key)[2]) {
  if (args.type == StoreKvArgs::kBF16) {
    Store(reinterpret_cast<uint32_t*>(cache) + KeyIndex(args.type, position, d, args.head_dim) / 2,
          PackBF16(key[0], key[1]));
    return;
  }
  for (int j = 0; j < 2; ++j)
    StoreElement(args.type, cache, KeyIndex(args.type, position, d + j, args.head_dim), key[j]);
}

// Turns (x, y) by a position's angle.
BW_DEVICE void Rotate(float& x, float& y, float cosine, float sine) {
  const float turned = Fma(x, cosine, -(y * sine));
  y = Fma(y, cosine, x * sine);
  x = turned;
}

// What RMSNorm multiplies a head with, the same bits in all lanes: a lane sums every 32nd pair, then lanes
// add up by halves. `head_dim` is even.
BW_DEVICE float HeadFactor(const float* head, int head_dim, float epsilon) {
  float squares = 0;
  for (int d = 2 * Lane(); d < head_dim; d += 64) {
    const float low = Load(head + d), high = Load(head + d + 1);
    squares = Fma(high, high, Fma(low, low, squares));
  }
  BW_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) squares += ShuffleXor(squares, mask);
  return 1.0f / Sqrt(squares / static_cast<float>(head_dim) + epsilon);
}

// A warp a head of a row; a lane the values d, d + 1 and, with RoPE, those head_dim / 2 on. `half` is
// head_dim / 2.
BW_DEVICE void StoreHead(const StoreKvArgs& args, int row, int head, bool is_query, int position,
                         char* cache) {
  const int half = args.head_dim / 2, in_block = position % kKvBlockPositions;
  const float* from = is_query ? args.query + row * args.query_stride + head * args.head_dim
                               : args.key + row * args.kv_stride + head * args.head_dim;
  float* query = args.query + row * args.query_stride + head * args.head_dim;
  const float* cosines = args.cosines + static_cast<int64_t>(position) * half;
  const float* sines = args.sines + static_cast<int64_t>(position) * half;
  const bool rope = args.cosines != nullptr;
  const float* norm = is_query ? args.query_norm : args.key_norm;
  const float factor = norm != nullptr ? HeadFactor(from, args.head_dim, args.epsilon) : 1.0f;
  const auto value = [&](int i) {
    return norm != nullptr ? Load(from + i) * factor * Load(norm + i) : Load(from + i);
  };
  for (int d = 2 * Lane(); d < (rope ? half : args.head_dim); d += 64) {
    // With an odd half the last lane has one value on each side.
    const int count = rope && d + 1 == half ? 1 : 2;
    float low[2] = {0, 0}, high[2] = {0, 0};
    for (int j = 0; j < count; ++j) {
      low[j] = value(d + j);
      if (!rope) continue;
      high[j] = value(d + half + j);
      Rotate(low[j], high[j], Load(cosines + d + j), Load(sines + d + j));
    }
    if (is_query) {
      for (int j = 0; j < count; ++j) {
        Store(query + d + j, low[j]);
        Store(query + d + half + j, high[j]);
      }
    } else if (count == 2 && half % 2 == 0) {
      StoreKeyPair(args, cache, in_block, d, low);
      if (rope) StoreKeyPair(args, cache, in_block, d + half, high);
    } else {
      for (int j = 0; j < count; ++j) {
        StoreElement(args.type, cache, KeyIndex(args.type, in_block, d + j, args.head_dim), low[j]);
        if (rope)
          StoreElement(args.type, cache, KeyIndex(args.type, in_block, d + half + j, args.head_dim), high[j]);
      }
    }
  }
}

// A warp a head. Grid: x: rows, y: ceil((heads + kv_heads) / warps).
BW_DEVICE void StoreKv(const StoreKvArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int row = BlockX(), index = BlockY() * (BlockThreads() / 32) + Warp();
  if (index >= args.heads + args.kv_heads) return;
  const bool is_query = index < args.heads;
  const int position = Load(args.positions + row);
  if (is_query) {
    if (args.cosines != nullptr) StoreHead(args, row, index, true, position, nullptr);
    return;
  }
  const int head = index - args.heads;
  const int block = Load(args.blocks + row);
  char* cache = args.cache + block * args.block_stride + head * args.head_bytes;
  StoreHead(args, row, head, false, position, cache);
  for (int d = Lane(); d < args.head_dim; d += 32) {
    const float value = Load(args.value + row * args.kv_stride + head * args.head_dim + d);
    StoreElement(args.type, cache, ValueIndex(args.type, position % kKvBlockPositions, d, args.head_dim),
                 value);
  }
}

}  // namespace bellwether::gpu
