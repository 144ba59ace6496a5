// Attention over the paged KV cache; include avx512_vector.h or avx2_vector.h first.
//
// For each query and key position the score is one chain of multiply-adds along the head's dimensions, and
// each output one chain along the positions of a tile: how many queries share a pass over the cache changes
// nothing.
#pragma once

#include <algorithm>
#include <limits>

#include "common/dtype.h"
#include "common/step.h"
#include "kernels/cpu/avx_math_inl.h"
#include "kernels/kernels.h"

namespace bellwether::kernels::BW_LEVEL {

inline constexpr int kTilePositions = 64;
static_assert(kTilePositions == 2 * kKvBlockTokens);

template <DType type>
BW_SIMD_INLINE Vector LoadCached(const std::byte* p) {
  if constexpr (type == DType::kF32) return Load(reinterpret_cast<const float*>(p));
  if constexpr (type == DType::kBF16) return LoadBF16(p);
  if constexpr (type == DType::kF16) return LoadF16(p);
}
template <DType type>
BW_SIMD_INLINE Vector LoadFirstCached(const std::byte* p, int64_t count) {
  if constexpr (type == DType::kF32) return LoadFirst(reinterpret_cast<const float*>(p), count);
  if constexpr (type == DType::kBF16) return LoadFirstBF16(p, count);
  if constexpr (type == DType::kF16) return LoadFirstF16(p, count);
}

// Some queries on their way through the cache.
struct QueryGroup {
  const AttentionQuery* queries;
  float maximum[kAttentionQueries];
  float sum[kAttentionQueries];
  // Of the tile at hand.
  float correction[kAttentionQueries];  // what earlier sums are multiplied by
  int valid[kAttentionQueries];         // positions the query attends to; 0: it has passed its end
  alignas(64) float weights[kAttentionQueries][kTilePositions];  // scores, then their exponentials
};

BW_SIMD_INLINE void PrefetchLines(const std::byte* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
}

// Scores of one block: keys [head_dim][32]. Meanwhile `next_keys`, as many, are fetched: the blocks of a
// sequence lie anywhere in memory, so the processor cannot foresee them.
template <DType type, int kQueries>
BW_SIMD_INLINE void ScoreBlock(const std::byte* keys, const std::byte* next_keys, int head_dim,
                               QueryGroup& group, int first_position) {
  constexpr int64_t kRowBytes = kKvBlockTokens * SizeOf(type);
  Vector scores[kQueries][2];
  BW_UNROLL
  for (int q = 0; q < kQueries; ++q) scores[q][0] = scores[q][1] = Zero();
  for (int d = 0; d < head_dim; ++d, keys += kRowBytes, next_keys += kRowBytes) {
    PrefetchLines(next_keys, kRowBytes);
    const Vector low = LoadCached<type>(keys), high = LoadCached<type>(keys + kRowBytes / 2);
    BW_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      const Vector x = Broadcast(group.queries[q].q[d]);
      scores[q][0] = MultiplyAdd(low, x, scores[q][0]);
      scores[q][1] = MultiplyAdd(high, x, scores[q][1]);
    }
  }
  BW_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    Store(scores[q][0], &group.weights[q][first_position]);
    Store(scores[q][1], &group.weights[q][first_position + 16]);
  }
}

// Scores become softmax weights relative to the running maximum. Lanes past the query's own position may hold
// anything; they become exactly 0.
BW_SIMD_INLINE void SoftmaxTile(QueryGroup& group, int q, int tile_begin, float scale) {
  const Vector slope = Broadcast(group.queries[q].alibi_slope);
  float* weights = group.weights[q];
  Vector scores[4], largest = Broadcast(-std::numeric_limits<float>::infinity());
  BW_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Vector position = Add(Iota(), Broadcast(static_cast<float>(tile_begin + 16 * i)));
    const Vector score = MultiplyAdd(slope, position, Multiply(Load(weights + 16 * i), Broadcast(scale)));
    scores[i] = Select(std::clamp(group.valid[q] - 16 * i, 0, 16), score,
                       Broadcast(-std::numeric_limits<float>::infinity()));
    largest = Max(largest, scores[i]);
  }
  const float maximum = std::max(group.maximum[q], MaxOfLanes(largest));
  BW_UNROLL
  for (int i = 0; i < 4; ++i) {
    scores[i] = Exp(Subtract(scores[i], Broadcast(maximum)));
    Store(scores[i], weights + 16 * i);
  }
  const float sum = SumOfLanes(Add(Add(scores[0], scores[1]), Add(scores[2], scores[3])));
  alignas(64) float correction[16];
  Store(Exp(Broadcast(group.maximum[q] - maximum)), correction);
  group.correction[q] = correction[0];
  group.sum[q] = group.sum[q] * correction[0] + sum;
  group.maximum[q] = maximum;
}

// The values of a tile: positions [0, 32) from the first block, the others from the second.
struct TileValues {
  const std::byte* blocks[2];
  const std::byte* next_blocks[2];  // of the next tile, to be fetched
  int head_dim;
};

// For `kQueries` queries from `first_query` on: out[d, d + 16 kVectors) gains the values of positions [begin,
// end) of the tile, times their weights. The last vector's lanes may be fewer.
template <DType type, int kQueries, int kVectors>
BW_SIMD_INLINE void AddValues(const TileValues& values, QueryGroup& group, int first_query, int d, int lanes,
                              int begin, int end, bool correct) {
  const int64_t row_bytes = values.head_dim * SizeOf(type);
  Vector sums[kQueries][kVectors];
  BW_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    const float* out = group.queries[first_query + q].out + d;
    const Vector factor = Broadcast(correct ? group.correction[first_query + q] : 1.0f);
    BW_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sums[q][v] = Multiply(kVectors == 1 ? LoadFirst(out, lanes) : Load(out + 16 * v), factor);
    }
  }
  for (int position = begin; position < end; ++position) {
    const int64_t offset = position % kKvBlockTokens * row_bytes + d * SizeOf(type);
    const std::byte* row = values.blocks[position / kKvBlockTokens] + offset;
    PrefetchLines(values.next_blocks[position / kKvBlockTokens] + offset, kVectors * 16 * SizeOf(type));
    Vector value[kVectors];
    BW_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      value[v] = kVectors == 1 && lanes < 16 ? LoadFirstCached<type>(row, lanes)
                                             : LoadCached<type>(row + v * 16 * SizeOf(type));
    }
    BW_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      const Vector weight = Broadcast(group.weights[first_query + q][position]);
      BW_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[q][v] = MultiplyAdd(value[v], weight, sums[q][v]);
    }
  }
  BW_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    float* out = group.queries[first_query + q].out + d;
    BW_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      kVectors == 1 ? StoreFirst(sums[q][v], out, lanes) : Store(sums[q][v], out + 16 * v);
    }
  }
}

template <DType type, int kQueries>
BW_SIMD void AddAllValues(const TileValues& values, QueryGroup& group, int first_query, int begin, int end,
                          bool correct) {
  constexpr int kVectors = std::min(4, kAttentionSums / kQueries);
  int d = 0;
  for (; d + 16 * kVectors <= values.head_dim; d += 16 * kVectors) {
    AddValues<type, kQueries, kVectors>(values, group, first_query, d, 16, begin, end, correct);
  }
  for (; d < values.head_dim; d += 16) {
    const int lanes = std::min(16, values.head_dim - d);
    AddValues<type, kQueries, 1>(values, group, first_query, d, lanes, begin, end, correct);
  }
}

template <DType type, int kQueries>
BW_SIMD void AttendGroup(const KvHead& head, const AttentionQuery* queries, float scale) {
  QueryGroup group;
  group.queries = queries;
  int last = 0;
  for (int q = 0; q < kQueries; ++q) {
    last = std::max(last, queries[q].position);
    group.maximum[q] = -std::numeric_limits<float>::infinity();
    group.sum[q] = 0.0f;
    std::fill_n(queries[q].out, head.head_dim, 0.0f);
  }
  const int64_t key_bytes = int64_t{head.head_dim} * kKvBlockTokens * SizeOf(type);
  for (int tile = 0; tile <= last; tile += kTilePositions) {
    TileValues values = {.blocks = {}, .next_blocks = {}, .head_dim = head.head_dim};
    for (int half = 0; half < 2; ++half) {
      const int position = tile + half * kKvBlockTokens;
      if (position > last) break;
      const std::byte* block = head.blocks + head.table[position / kKvBlockTokens] * head.block_stride;
      const int next_position = std::min(position + kTilePositions, last);
      const std::byte* next = head.blocks + head.table[next_position / kKvBlockTokens] * head.block_stride;
      values.blocks[half] = block + key_bytes;
      values.next_blocks[half] = next + key_bytes;
      ScoreBlock<type, kQueries>(block, next, head.head_dim, group, half * kKvBlockTokens);
    }
    int common = kTilePositions;  // positions that every query of the group attends to
    for (int q = 0; q < kQueries; ++q) {
      group.valid[q] = std::clamp(queries[q].position - tile + 1, 0, kTilePositions);
      common = std::min(common, group.valid[q]);
      if (group.valid[q] > 0) SoftmaxTile(group, q, tile, scale);
    }
    // Values past a query's position are never multiplied, not even by 0: they may be NaN.
    if (common > 0) AddAllValues<type, kQueries>(values, group, 0, 0, common, true);
    for (int q = 0; q < kQueries; ++q) {
      if (group.valid[q] > common) {
        AddAllValues<type, 1>(values, group, q, common, group.valid[q], common == 0);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    const Vector sum = Broadcast(group.sum[q]);
    for (int d = 0; d < head.head_dim; d += 16) {
      const int lanes = std::min(16, head.head_dim - d);
      StoreFirst(Divide(LoadFirst(queries[q].out + d, lanes), sum), queries[q].out + d, lanes);
    }
  }
}

// As many queries at once as fit into registers, then the rest in halves.
template <DType type, int kQueries>
BW_SIMD void AttendGroups(const KvHead& head, const AttentionQuery* queries, int count, float scale) {
  for (; count >= kQueries; count -= kQueries, queries += kQueries) {
    AttendGroup<type, kQueries>(head, queries, scale);
  }
  if constexpr (kQueries > 1) AttendGroups<type, kQueries / 2>(head, queries, count, scale);
}

BW_SIMD inline void Attention(const KvHead& head, const AttentionQuery* queries, int count, float scale) {
  switch (head.dtype) {
    case DType::kF32:
      return AttendGroups<DType::kF32, kAttentionQueries>(head, queries, count, scale);
    case DType::kBF16:
      return AttendGroups<DType::kBF16, kAttentionQueries>(head, queries, count, scale);
    case DType::kF16:
      return AttendGroups<DType::kF16, kAttentionQueries>(head, queries, count, scale);
  }
}

BW_SIMD inline void WriteKv(const KvHead& head, int32_t position, const float* key, const float* value) {
  const int64_t slot = position % kKvBlockTokens;
  std::byte* keys = head.blocks + head.table[position / kKvBlockTokens] * head.block_stride;
  std::byte* values = keys + int64_t{head.head_dim} * kKvBlockTokens * SizeOf(head.dtype);
  if (head.dtype == DType::kF32) {
    auto* column = reinterpret_cast<float*>(keys) + slot;
    for (int64_t d = 0; d < head.head_dim; ++d) column[d * kKvBlockTokens] = key[d];
    std::memcpy(reinterpret_cast<float*>(values) + slot * head.head_dim, value,
                head.head_dim * sizeof(float));
    return;
  }
  auto* column = reinterpret_cast<uint16_t*>(keys) + slot;
  auto* row = reinterpret_cast<uint16_t*>(values) + slot * head.head_dim;
  for (int64_t d = 0; d < head.head_dim; d += 16) {
    const int64_t lanes = std::min<int64_t>(16, head.head_dim - d);
    uint16_t rounded[2][16];
    for (int which = 0; which < 2; ++which) {
      const Vector v = LoadFirst((which == 0 ? key : value) + d, lanes);
      head.dtype == DType::kBF16 ? StoreBF16(v, rounded[which]) : StoreF16(v, rounded[which]);
    }
    for (int64_t i = 0; i < lanes; ++i) column[(d + i) * kKvBlockTokens] = rounded[0][i];
    std::memcpy(row + d, rounded[1], lanes * sizeof(uint16_t));
  }
}

}  // namespace bellwether::kernels::BW_LEVEL
