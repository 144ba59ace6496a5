#include <algorithm>
#include <limits>

#include "common/step.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/portable_vector.h"

namespace bellwether::kernels::portable {
namespace {

constexpr int kBlock = kKvBlockTokens;
constexpr int kTileBlocks = 2;  // blocks between two updates of the running maximum and sum
constexpr int kTile = kTileBlocks * kBlock;

struct RunningSoftmax {
  float maximum = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

template <DType kType>
F4 LoadElements(const std::byte* array, int64_t index) {
  if constexpr (kType == DType::kF32) {
    F4 value;
    std::memcpy(&value, array + index * 4, sizeof(value));
    return value;
  } else if constexpr (kType == DType::kBF16) {
    return F32FromBF16Bits(LoadHalves(array + index * 2));
  } else {
    return F32FromF16Bits(LoadHalves(array + index * 2));
  }
}

template <DType kType>
float LoadElement(const std::byte* array, int64_t index) {
  if constexpr (kType == DType::kF32) {
    float value;
    std::memcpy(&value, array + index * 4, sizeof(value));
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, array + index * 2, sizeof(bits));
    return kType == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
  }
}

// q . k for the 32 positions of a block.
template <DType kType>
void Scores(const std::byte* keys, const float* q, int head_dim, float* scores) {
  F4 sums[kBlock / kLanes] = {};
  for (int d = 0; d < head_dim; ++d) {
    const F4 factor = Broadcast(q[d]);
#pragma GCC unroll 8
    for (int v = 0; v < kBlock / kLanes; ++v) {
      sums[v] += factor * LoadElements<kType>(keys, d * kBlock + v * kLanes);
    }
  }
  for (int v = 0; v < kBlock / kLanes; ++v) Store4(sums[v], scores + v * kLanes);
}

// out[d ... d + 4 kVectors) += weights[p] * values[p][d ...] for p in [0, count)
template <DType kType, int kVectors>
void AddValues(const std::byte* values, const float* weights, int count, int head_dim, int d, float* out) {
  F4 sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sums[v] = Load4(out + d + v * kLanes);
  for (int p = 0; p < count; ++p) {
    const F4 weight = Broadcast(weights[p]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[v] += weight * LoadElements<kType>(values, p * head_dim + d + v * kLanes);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) Store4(sums[v], out + d + v * kLanes);
}

template <DType kType>
void AddBlockValues(const std::byte* values, const float* weights, int count, int head_dim, float* out) {
  int d = 0;
  for (; d + 8 * kLanes <= head_dim; d += 8 * kLanes) {
    AddValues<kType, 8>(values, weights, count, head_dim, d, out);
  }
  for (; d + kLanes <= head_dim; d += kLanes) AddValues<kType, 1>(values, weights, count, head_dim, d, out);
  for (; d < head_dim; ++d) {
    for (int p = 0; p < count; ++p) out[d] += weights[p] * LoadElement<kType>(values, p * head_dim + d);
  }
}

// Scaled scores of the tile at `tile`; -infinity past the query's position. Returns the largest.
template <DType kType>
float TileScores(const KvHead& head, const AttentionQuery& query, float scale, int tile, float* scores) {
  F4 maximum = Broadcast(-std::numeric_limits<float>::infinity());
  std::fill(scores, scores + kTile, -std::numeric_limits<float>::infinity());
  for (int begin = tile; begin < tile + kTile && begin <= query.position; begin += kBlock) {
    float* block_scores = scores + (begin - tile);
    Scores<kType>(head.blocks + head.table[begin / kBlock] * head.block_stride, query.q, head.head_dim,
                  block_scores);
    for (int i = 0; i < kBlock; i += kLanes) {
      const I4 position = begin + i + I4{0, 1, 2, 3};
      const F4 biased = Broadcast(scale) * Load4(block_scores + i) +
                        Broadcast(query.alibi_slope) * __builtin_convertvector(position, F4);
      const F4 masked =
          position <= query.position ? biased : Broadcast(-std::numeric_limits<float>::infinity());
      Store4(masked, block_scores + i);
      maximum = Max(masked, maximum);
    }
  }
  return LargestLane(maximum);
}

template <DType kType>
void AttendTile(const KvHead& head, const AttentionQuery& query, float scale, int tile,
                RunningSoftmax& state) {
  float weights[kTile];
  const float tile_maximum = TileScores<kType>(head, query, scale, tile, weights);
  const float maximum = state.maximum > tile_maximum ? state.maximum : tile_maximum;
  F4 tile_sum = {};
  for (int i = 0; i < kTile; i += kLanes) {
    const F4 weight = Exp4(Load4(weights + i) - Broadcast(maximum));
    Store4(weight, weights + i);
    tile_sum += weight;
  }
  const float correction = Exp4(Broadcast(state.maximum - maximum))[0];
  state.sum = state.sum * correction + SumOfLanes(tile_sum);
  state.maximum = maximum;
  for (int d = 0; d < head.head_dim; ++d) query.out[d] = tile == 0 ? 0.0f : query.out[d] * correction;
  const int64_t values_offset = SizeOf(kType) * head.head_dim * kBlock;
  for (int begin = tile; begin < tile + kTile && begin <= query.position; begin += kBlock) {
    // Values of positions not yet written may be NaN: they are not touched.
    const int count = std::min(kBlock, query.position + 1 - begin);
    const std::byte* block = head.blocks + head.table[begin / kBlock] * head.block_stride;
    AddBlockValues<kType>(block + values_offset, weights + (begin - tile), count, head.head_dim, query.out);
  }
}

template <DType kType>
void AttendAll(const KvHead& head, const AttentionQuery* queries, int count, float scale) {
  RunningSoftmax states[kAttentionQueriesMax];
  int last = 0;
  for (int i = 0; i < count; ++i) last = std::max(last, queries[i].position);
  // All queries pass over a tile while it is in the cache; each sees the tiles in the same order as alone.
  for (int tile = 0; tile <= last; tile += kTile) {
    for (int i = 0; i < count; ++i) {
      if (tile <= queries[i].position) AttendTile<kType>(head, queries[i], scale, tile, states[i]);
    }
  }
  for (int i = 0; i < count; ++i) {
    for (int d = 0; d < head.head_dim; ++d) queries[i].out[d] /= states[i].sum;
  }
}

}  // namespace

void Attention(const KvHead& head, const AttentionQuery* queries, int count, float scale) {
  switch (head.dtype) {
    case DType::kF32:
      return AttendAll<DType::kF32>(head, queries, count, scale);
    case DType::kBF16:
      return AttendAll<DType::kBF16>(head, queries, count, scale);
    case DType::kF16:
      return AttendAll<DType::kF16>(head, queries, count, scale);
  }
}

}  // namespace bellwether::kernels::portable
