// Tiles of a matrix product (avx_tiles.h); include avx512_vector.h or avx2_vector.h first.
//
// A float format F says what one step reads and does:
//   kOutputBytes      bytes of weights for each output
//   kActivationBytes  bytes of activations for each row
//   kParts            multiply-adds for each accumulator, one after another
//   Operand           what is multiplied: Weights(pointer, part), Activations(pointer, part)
//   MultiplyAddTo(sums, weights, activations)
// A quantised format Q does so for 8 columns, in two parts of 4:
//   kGroupBytes       bytes of weights for each output
//   Sums              integer accumulators of one block for 16 outputs
//   Start(correction), Finish(sums, correction): correction = lowest_q * sum of the block's activations makes
//   up for
//                     weights being stored as q - lowest_q; Finish gives the dot products as floats
//   WeightOperand Weights(pointer, part), ActivationOperand Activations(pointer), Accumulate(sums, weights,
//   activations)
#pragma once

#include "common/dtype.h"
#include "kernels/cpu/avx_tiles.h"

namespace bellwether::kernels::BW_LEVEL {

struct Float32 {
  static constexpr int kOutputBytes = 4, kActivationBytes = 4, kParts = 1;
  using Operand = Vector;
  static BW_SIMD_INLINE Vector Weights(const std::byte* p, int) {
    return Load(reinterpret_cast<const float*>(p));
  }
  static BW_SIMD_INLINE Vector Activations(const std::byte* p, int) {
    return Broadcast(*reinterpret_cast<const float*>(p));
  }
  static BW_SIMD_INLINE Vector MultiplyAddTo(Vector sums, Vector weights, Vector activations) {
    return MultiplyAdd(weights, activations, sums);
  }
};

struct Float16 : Float32 {
  static constexpr int kOutputBytes = 2;
  static BW_SIMD_INLINE Vector Weights(const std::byte* p, int) { return LoadF16(p); }
};

// Pairs of columns against fp32 activations.
struct BFloat16 : Float32 {
  static constexpr int kOutputBytes = 4, kActivationBytes = 8, kParts = 2;
  static BW_SIMD_INLINE Vector Weights(const std::byte* p, int part) { return WidenHalfOfPairs(p, part); }
  static BW_SIMD_INLINE Vector Activations(const std::byte* p, int part) {
    return Broadcast(reinterpret_cast<const float*>(p)[part]);
  }
};

// Into the second-level cache: the first has too few places for lines on their way to keep memory busy.
BW_SIMD_INLINE void Prefetch(const std::byte*& next, const std::byte* end, int lines) {
  if (next >= end) return;
  for (int i = 0; i < lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(next + 64 * i), _MM_HINT_T1);
  next += 64 * lines;
}

template <int kRows, int kTileLanes>
BW_SIMD_INLINE void LoadSums(const TileArgs& tile, Vector (&sums)[kRows][kTileLanes]) {
  BW_UNROLL
  for (int r = 0; r < kRows; ++r) {
    BW_UNROLL
    for (int n = 0; n < kTileLanes; ++n) {
      sums[r][n] = tile.first ? Zero() : Load(tile.sums + r * tile.sums_stride + 16 * n);
    }
  }
}
// Puts the sums of a segment on the stack at `top` and adds `additions` sums of earlier segments; returns
// where the result is. That happens while the sums are at hand: written and read back, they would cost a
// tenth of the time where segments are short.
template <int kRows, int kTileLanes>
BW_SIMD_INLINE float* StoreSums(const TileArgs& tile, float* top, int additions,
                                Vector (&sums)[kRows][kTileLanes]) {
  for (int i = 0; i < additions; ++i) {
    top -= tile.stack_stride;
    BW_UNROLL
    for (int r = 0; r < kRows; ++r) {
      BW_UNROLL
      for (int n = 0; n < kTileLanes; ++n) {
        sums[r][n] = Add(Load(top + r * tile.sums_stride + 16 * n), sums[r][n]);
      }
    }
  }
  BW_UNROLL
  for (int r = 0; r < kRows; ++r) {
    BW_UNROLL
    for (int n = 0; n < kTileLanes; ++n) Store(sums[r][n], top + r * tile.sums_stride + 16 * n);
  }
  return top;
}

template <typename F, int kRows, int kTileLanes>
BW_SIMD void FloatTile(const TileArgs& tile) {
  Vector sums[kRows][kTileLanes];
  LoadSums(tile, sums);
  const std::byte* weights = tile.weights + tile.first_output * F::kOutputBytes;
  const int64_t step_bytes = tile.width * F::kOutputBytes;
  const std::byte* activations = tile.activations;
  const int64_t stride = tile.activation_stride;
  const std::byte* prefetch = tile.prefetch;
  for (int64_t step = 0; step < tile.steps; ++step) {
    Prefetch(prefetch, tile.prefetch_end, tile.prefetch_lines);
    BW_UNROLL
    for (int part = 0; part < F::kParts; ++part) {
      typename F::Operand w[kTileLanes];
      BW_UNROLL
      for (int n = 0; n < kTileLanes; ++n) w[n] = F::Weights(weights + n * 16 * F::kOutputBytes, part);
      BW_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const typename F::Operand x = F::Activations(activations + r * stride, part);
        BW_UNROLL
        for (int n = 0; n < kTileLanes; ++n) sums[r][n] = F::MultiplyAddTo(sums[r][n], w[n], x);
      }
    }
    weights += step_bytes;
    activations += F::kActivationBytes;
  }
  StoreSums(tile, tile.sums, tile.additions, sums);
}

// Scales, and offsets if there are any, of one block.
template <int kTileLanes>
struct WeightScales {
  Vector scale[kTileLanes];
  Vector offset[kTileLanes];
};

BW_SIMD_INLINE Vector LoadScale(const std::byte* scales, int64_t output, bool half) {
  if (half) return LoadF16(scales + output * 2);
  return Load(reinterpret_cast<const float*>(scales) + output);
}
template <int kTileLanes>
BW_SIMD_INLINE void LoadScales(const TileArgs& tile, const std::byte* scales, WeightScales<kTileLanes>& out) {
  const std::byte* offsets = scales + tile.width * (tile.half_scales ? 2 : 4);
  BW_UNROLL
  for (int n = 0; n < kTileLanes; ++n) {
    out.scale[n] = LoadScale(scales, tile.first_output + 16 * n, tile.half_scales);
  }
  if (!tile.has_offset) return;
  BW_UNROLL
  for (int n = 0; n < kTileLanes; ++n) {
    out.offset[n] = LoadScale(offsets, tile.first_output + 16 * n, tile.half_scales);
  }
}

// sums += activation scale * (weight scale * dot + offset * sum of activations), for one block.
template <typename Q, int kRows, int kTileLanes>
BW_SIMD_INLINE void AddBlock(const TileArgs& tile, const WeightScales<kTileLanes>& scales,
                             const std::byte* block_scales, const typename Q::Sums (&dots)[kRows][kTileLanes],
                             Vector (&sums)[kRows][kTileLanes]) {
  BW_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto* block = reinterpret_cast<const BlockScale*>(block_scales + r * tile.activation_stride);
    const Vector activation_scale = Broadcast(block->scale);
    const int correction = tile.lowest_q * block->sum;
    BW_UNROLL
    for (int n = 0; n < kTileLanes; ++n) {
      Vector value = Multiply(scales.scale[n], Q::Finish(dots[r][n], correction));
      if (tile.has_offset) {
        value = MultiplyAdd(scales.offset[n], Broadcast(static_cast<float>(block->sum)), value);
      }
      sums[r][n] = MultiplyAdd(activation_scale, value, sums[r][n]);
    }
  }
}

constexpr int kPanelLanes = kPanelRows / 16;

// Where a tile of a quantised matrix has got to.
struct QuantizedCursor {
  explicit BW_SIMD_INLINE QuantizedCursor(const TileArgs& tile)
      : weights(tile.weights),
        scales(tile.weight_scales),
        activations(tile.activations),
        block_scales(tile.block_scales),
        prefetch(tile.prefetch) {}

  const std::byte* weights;
  const std::byte* scales;  // in force
  const std::byte* activations;
  const std::byte* block_scales;
  const std::byte* prefetch;
};

// dots += the products of 8 columns.
template <typename Q, int kRows, int kTileLanes>
BW_SIMD_INLINE void AddColumns(const TileArgs& tile, const QuantizedCursor& at,
                               typename Q::Sums (&dots)[kRows][kTileLanes]) {
  BW_UNROLL
  for (int part = 0; part < 2; ++part) {
    const std::byte* weights =
        at.weights + tile.first_output * 4 + (Q::kGroupBytes == 8 ? part * tile.width * 4 : 0);
    typename Q::WeightOperand w[kTileLanes];
    BW_UNROLL
    for (int n = 0; n < kTileLanes; ++n) w[n] = Q::Weights(weights + n * 64, part);
    BW_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const typename Q::ActivationOperand x =
          Q::Activations(at.activations + r * tile.activation_stride + 4 * part);
      BW_UNROLL
      for (int n = 0; n < kTileLanes; ++n) dots[r][n] = Q::Accumulate(dots[r][n], w[n], x);
    }
  }
}

// The same for a whole panel and one row, 8 columns of int4 or 4 of int8: one line for each lane. That waits
// for memory alone, and what the processor fetches by itself is too little (kernels/matmul_bench.cc, M:1).
// It follows four neighbouring lines much better than eight or sixteen, so the loop around this is not
// unrolled; lines are taken in their order in memory.
template <typename Q>
BW_SIMD_INLINE void AddLines(const QuantizedCursor& at, typename Q::Sums (&dots)[1][kPanelLanes]) {
  constexpr int kParts = 8 / Q::kGroupBytes;
  typename Q::ActivationOperand x[kParts];
  BW_UNROLL
  for (int part = 0; part < kParts; ++part) x[part] = Q::Activations(at.activations + 4 * part);
  const std::byte* line = at.weights;
  BW_UNROLL
  for (int n = 0; n < kPanelLanes; ++n, line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(line + kStreamAhead), _MM_HINT_T1);
    BW_UNROLL
    for (int part = 0; part < kParts; ++part) {
      dots[0][n] = Q::Accumulate(dots[0][n], Q::Weights(line, part), x[part]);
    }
  }
}

// sums += the products of the blocks [begin, end).
template <typename Q, int kRows, int kTileLanes, bool kWholePanel = false>
BW_SIMD_INLINE void AddBlocks(const TileArgs& tile, const PackedMatrix::Block* begin,
                              const PackedMatrix::Block* end, QuantizedCursor& at,
                              Vector (&sums)[kRows][kTileLanes]) {
  constexpr int kColumns = kWholePanel ? 32 / Q::kGroupBytes : 8;  // at once
  const int64_t step_bytes = tile.width * Q::kGroupBytes * kColumns / 8;
  const int64_t scale_bytes = tile.width * (tile.half_scales ? 2 : 4) * (tile.has_offset ? 2 : 1);
  WeightScales<kTileLanes> scales = {};
  for (const PackedMatrix::Block* block = begin; block != end; ++block) {
    if (block->new_scales) {
      at.scales = at.weights;
      at.weights += scale_bytes;
      // In their order in memory, too: after the block's weights they cost one thread 5 % of its rate with
      // int8.
      if constexpr (kWholePanel) LoadScales(tile, at.scales, scales);
    }
    if constexpr (!kWholePanel)
      Prefetch(at.prefetch, tile.prefetch_end, tile.prefetch_lines);  // a step for the scales
    typename Q::Sums dots[kRows][kTileLanes];
    BW_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto* row = reinterpret_cast<const BlockScale*>(at.block_scales + r * tile.activation_stride);
      const typename Q::Sums start = Q::Start(tile.lowest_q * row->sum);
      BW_UNROLL
      for (int n = 0; n < kTileLanes; ++n) dots[r][n] = start;
    }
    const std::byte* block_end = at.activations + block->padded;
    BW_NO_UNROLL
    for (; at.activations != block_end; at.activations += kColumns, at.weights += step_bytes) {
      if constexpr (kWholePanel) {
        AddLines<Q>(at, dots);
      } else {
        Prefetch(at.prefetch, tile.prefetch_end, tile.prefetch_lines);
        AddColumns<Q, kRows, kTileLanes>(tile, at, dots);
      }
    }
    if constexpr (!kWholePanel) LoadScales(tile, at.scales, scales);
    AddBlock<Q, kRows, kTileLanes>(tile, scales, at.block_scales, dots, sums);
    at.block_scales += sizeof(BlockScale);
  }
}

template <typename Q, int kRows, int kTileLanes>
BW_SIMD void QuantizedTile(const TileArgs& args) {
  const TileArgs tile = args;      // nothing that is written below can change it
  Vector sums[kRows][kTileLanes];  // of many rows the compiler keeps them in memory
  LoadSums(tile, sums);
  QuantizedCursor at(tile);
  AddBlocks<Q, kRows, kTileLanes>(tile, tile.blocks, tile.blocks + tile.block_count, at, sums);
  StoreSums(tile, tile.sums, tile.additions, sums);
}

template <typename Q>
BW_SIMD void QuantizedPanel(const TileArgs& args) {
  const TileArgs tile = args;
  QuantizedCursor at(tile);
  float* top = tile.sums;
  for (const PackedMatrix::Segment& segment : tile.segments) {
    Vector sums[1][kPanelLanes];
    BW_UNROLL
    for (int n = 0; n < kPanelLanes; ++n) sums[0][n] = Zero();
    AddBlocks<Q, 1, kPanelLanes, true>(tile, tile.blocks + segment.block_begin,
                                       tile.blocks + segment.block_end, at, sums);
    top = StoreSums(tile, top, segment.additions, sums) + tile.stack_stride;
  }
}

// From `kRows` rows down; a single row of a quantised panel is QuantizedPanel's.
template <typename F, int kTileLanes, int kRows, bool quantized>
constexpr void FillTiles(TileFunction (&tiles)[kTileRowsMax + 1]) {
  if constexpr (kRows > (quantized && kTileLanes == kPanelLanes ? 1 : 0)) {
    if constexpr (quantized) {
      tiles[kRows] = QuantizedTile<F, kRows, kTileLanes>;
    } else {
      tiles[kRows] = FloatTile<F, kRows, kTileLanes>;
    }
    FillTiles<F, kTileLanes, kRows - 1, quantized>(tiles);
  }
}
// Tiles of 16 outputs have up to `kNarrowRows` rows, those of 64 up to `kWideRows`.
template <typename F, int kNarrowRows, int kWideRows>
constexpr TileFunctions FloatTiles() {
  TileFunctions tiles;
  FillTiles<F, 1, kNarrowRows, false>(tiles.one_lane);
  FillTiles<F, 4, kWideRows, false>(tiles.four_lanes);
  tiles.rows_max = kNarrowRows;
  tiles.activation_bytes = F::kActivationBytes;
  return tiles;
}
template <typename Q, int kNarrowRows, int kWideRows>
constexpr TileFunctions QuantizedTiles() {
  TileFunctions tiles;
  FillTiles<Q, 1, kNarrowRows, true>(tiles.one_lane);
  FillTiles<Q, 4, kWideRows, true>(tiles.four_lanes);
  tiles.whole_panel = QuantizedPanel<Q>;
  tiles.rows_max = kNarrowRows;
  return tiles;
}

}  // namespace bellwether::kernels::BW_LEVEL
