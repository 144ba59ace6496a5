#pragma once

// y = x W^T for few rows: the weights are streamed once from device memory into registers, as tensor core
// fragments, and everything else hides behind that.
//
// A block owns kTilesM tiles of 16 outputs and all columns; each of its warps takes a run of segments.
// Weights are the M operand, rows of x (in blocks of 8) the N operand. When all segments are done their sums
// are added in shared memory, in the order of the root they belong to. No bit depends on the number of rows,
// of warps, or of tiles a warp takes.

#include "kernels/gpu/operand.h"
#include "kernels/gpu/simt.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

constexpr int kProductsMax = 3;
// Floats between columns of a tile's sums in shared memory: no bank conflicts when fragments are written.
constexpr int kSumStride = kTileRows + 4;

struct StreamMatmulArgs {
  struct Output {
    WeightView weights;
    float* y = nullptr;           // root r, row n, output m: y[r * root_stride + n * stride + m]
    const float* bias = nullptr;  // [rows of weights] or null
    int64_t root_stride = 0;
    int64_t stride = 0;
  };
  Output outputs[kProductsMax];  // blocks of the first come first; all have the same table
  int32_t output_count = 0;
  int32_t rows = 0;              // of x, at most 8 kTilesN
  uint32_t magic = 0x43004300u;  // kMagic
  int32_t unused = 0;
  const Words4* x = nullptr;  // operand in fragments
  int64_t limb_stride = 0;    // words of x from a limb to the next
  const float* set_sums =
      nullptr;  // [rows / 8][sets][8]: sum of x over each set's columns; formats with offsets
};

// 128 in both halves, from a register: with two constants a logic operation would be two instructions.
constexpr uint32_t kMagic = 0x43004300u;

// The A fragment of step `step` of a unit. `magic` is kMagic, zero_point that of int4.
template <TensorFormat kFormat>
BW_DEVICE void UnpackStep(const Words4 (&unit)[PartsPerUnit(kFormat)], int step, uint32_t magic,
                          uint32_t zero_point, uint32_t (&a)[4]) {
  if constexpr (kFormat == TensorFormat::kBF16) {
    const Words4& words = unit[step];
    a[0] = words.x, a[1] = words.y, a[2] = words.z, a[3] = words.w;
  } else if constexpr (kFormat == TensorFormat::kInt8) {
    const uint32_t words[2] = {step == 0 ? unit[0].x : unit[0].z, step == 0 ? unit[0].y : unit[0].w};
    for (int j = 0; j < 4; ++j) {
      // u = q + 128 in each half. 128 + u % 128 is a bf16 whose mantissa is u % 128; from it 128 goes if u's
      // top bit is set, else 256.
      const uint32_t pair = words[j / 2] >> (j % 2 * 8);
      a[j] = SubBF16((pair & 0x007f007fu) | magic, (pair & 0x00800080u) ^ (magic ^ 0x00800080u));
    }
  } else {
    const uint32_t word = step == 0 ? unit[0].x : step == 1 ? unit[0].y : step == 2 ? unit[0].z : unit[0].w;
    // 0x4300 + n is 128 + n in bf16; the zero point is 128 or 136.
    for (int j = 0; j < 4; ++j) a[j] = SubBF16((word >> (4 * j) & 0x000f000fu) | magic, zero_point);
  }
}

// The limbs of the A fragment of step `step` of a unit of fp16 or fp32.
template <TensorFormat kFormat>
BW_DEVICE void UnpackLimbs(const Words4 (&unit)[PartsPerUnit(kFormat)], int step,
                           uint32_t (&a)[Limbs(kFormat)][4]) {
  constexpr int kParts = PartsPerUnit(kFormat) / 2;  // of a step
  uint32_t words[kParts * 4];
  BW_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const Words4& part = unit[step * kParts + p];
    words[4 * p] = part.x, words[4 * p + 1] = part.y, words[4 * p + 2] = part.z, words[4 * p + 3] = part.w;
  }
  BW_UNROLL
  for (int j = 0; j < 4; ++j) {
    float low, high;
    if constexpr (kFormat == TensorFormat::kF32) {
      low = BitsFloat(words[2 * j]), high = BitsFloat(words[2 * j + 1]);
    } else {
      low = HalfToFloat(static_cast<uint16_t>(words[j] & 0xffffu));
      high = HalfToFloat(static_cast<uint16_t>(words[j] >> 16));
    }
    BW_UNROLL
    for (int limb = 0; limb < Limbs(kFormat); ++limb) a[limb][j] = TakeLimbs(low, high);
  }
}

// The products of limbs, for multiply(limb of the weights, limb of x) to do: those that matter to fp32, the
// largest first. The very first one is summed by itself, as the others are small beside it.
template <int kLimbs, typename Multiply>
BW_DEVICE void ForLimbProducts(const Multiply& multiply) {
  BW_UNROLL
  for (int both = 0; both < kLimbs; ++both) {
    BW_UNROLL
    for (int limb = 0; limb <= both; ++limb) multiply(limb, both - limb);
  }
}

BW_DEVICE uint32_t ZeroPoint(const WeightView& weights) {
  return weights.offsets != nullptr ? 0x43004300u : 0x43084308u;
}

// Scales or offsets of rows g and g + 8 as they are stored: a pair of fp16 (twice), or two fp32. Two loads
// either way, so that nothing waits for them before they are used.
BW_DEVICE Words2 LoadRowPair(const void* at, bool half) {
  const auto* words = static_cast<const uint32_t*>(at);
  return {Load(words), Load(words + (half ? 0 : 1))};
}
struct RowPair {
  float low, high;  // of rows g and g + 8
};
BW_DEVICE RowPair Value(const Words2& words, bool half) {
  const float low = HalfToFloat(static_cast<uint16_t>(words.x & 0xffffu));
  const float high = HalfToFloat(static_cast<uint16_t>(words.y >> 16));
  return {half ? low : BitsFloat(words.x), half ? high : BitsFloat(words.y)};
}

BW_DEVICE int FirstUnit(const WeightTable& table, int segment) {
  if (segment <= WeightTable::kInline) return table.unit_bounds[segment];
  return segment < table.segment_count ? Load(&table.segments[segment].unit_begin) : table.units;
}

// One warp walks its segments: sums of each for kTilesM x kTilesN tiles.
template <TensorFormat kFormat, SetEnds kSetEnds, int kTilesM, int kTilesN>
struct WarpStream {
  static constexpr bool kQuantized = IsQuantized(kFormat);
  static constexpr int kLimbs = Limbs(kFormat);
  static constexpr int kSteps = StepsPerUnit(kFormat);
  static constexpr int kParts = PartsPerUnit(kFormat);
  static constexpr int kPairs = kSteps / 2;                     // of steps: what a lane loads of x at once
  static constexpr int kUnitWords = kBlockTiles * kParts * 32;  // from a unit of a tile to its next
  // Units of weights in flight: 2 to 4 KB a warp, which covers the latency of device memory; and of x, which
  // is nearer.
  static constexpr int kDepth = kFormat == TensorFormat::kBF16 || kFormat == TensorFormat::kF32 ||
                                        (kSetEnds == SetEnds::kHalves && kTilesM == 2)
                                    ? 2
                                    : 4;
  static constexpr int kDepthX = 2;

  const StreamMatmulArgs& args;
  const WeightView& weights;
  // This lane's next unit of each tile and of x, and the scales of its rows.
  const Words4* next_unit[kTilesM];
  const Words4* next_x;
  const char* scale_at[kTilesM];
  const char* next_scale[kTilesM];
  bool rows_left[kTilesN];  // whether this lane's row of x is there
  const uint32_t magic, zero_point;
  // What is the matrix's, in registers: kernel parameters that are indexed are slow to read.
  const bool half, has_offsets;
  const int scale_step, set_units,
      x_block;               // bytes from set to set; units; words of x from a block of rows to the next
  const int64_t to_offsets;  // bytes from a scale to its offset

  float sum[kTilesM][kTilesN][4];
  // Of the set at hand. NOLINTNEXTLINE(bugprone-branch-clone): kTilesM may be 1.
  float dot[kQuantized ? kTilesM : 1][kTilesN][4];
  Words4 a_ring[kDepth][kTilesM][kParts];
  // What products of further limbs add to `sum`.
  float rest[kLimbs > 1 ? kTilesM : 1][kTilesN][4];  // NOLINT(bugprone-branch-clone): likewise
  Words4 x_ring[kDepthX][kTilesN][kPairs][kLimbs];
  int set = 0, set_units_left = 0;
  // Scales travel with the units that they belong to; where sets end anywhere, one set ahead.
  static constexpr bool kRegular = kSetEnds != SetEnds::kAnywhere;
  static constexpr int kSetsPerUnit = kSetEnds == SetEnds::kHalves ? 2 : 1;
  Words2 scale_ring[kRegular ? kDepth : 2][kSetsPerUnit][kTilesM];
  // Where the scales of the next unit to be loaded stand: its segment, the segment's end, and how much of the
  // set is left.
  int load_unit = 0, load_segment = 0, load_bound = 0, load_set = 0, load_left = 0;

  BW_DEVICE WarpStream(const StreamMatmulArgs& a, const WeightView& w, int first_tile, int begin)
      : args(a),
        weights(w),
        magic(a.magic),
        zero_point(ZeroPoint(w)),
        half(w.half_scales),
        has_offsets(w.offsets != nullptr),
        scale_step(w.half_scales ? 32 : 64),
        set_units(w.table.set_units),
        x_block(w.table.units * kPairs * 32),
        to_offsets(static_cast<const char*>(w.offsets) - static_cast<const char*>(w.scales)) {
    for (int m = 0; m < kTilesM; ++m) {
      // Past the last tile the last one is read again, and its sums are not written.
      const int tile = first_tile + m < w.tiles ? first_tile + m : w.tiles - 1;
      next_unit[m] = static_cast<const Words4*>(w.values) +
                     UnitOffset(kFormat, tile, begin, w.table.units) / static_cast<int64_t>(sizeof(Words4)) +
                     Lane();
      scale_at[m] = static_cast<const char*>(w.scales) +
                    (static_cast<int64_t>(tile) * w.table.sets * 8 + Lane() / 4) * (w.half_scales ? 4 : 8);
    }
    next_x = a.x + static_cast<int64_t>(begin) * kPairs * 32 + Lane();
    for (int n = 0; n < kTilesN; ++n) rows_left[n] = n * 8 + Lane() / 4 < a.rows;
    for (int i = 0; i < kDepthX; ++i) {
      for (int n = 0; n < kTilesN; ++n) {
        for (int p = 0; p < kPairs; ++p) {
          for (int limb = 0; limb < kLimbs; ++limb)
            x_ring[i][n][p][limb] = Words4{0, 0, 0, 0};  // and so it stays for rows that are not there
        }
      }
    }
    Clear();
  }

  BW_DEVICE void Clear() {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[m][n][c] = 0;
          if constexpr (kQuantized) dot[m][n][c] = 0;
          if constexpr (kLimbs > 1) rest[m][n][c] = 0;
        }
      }
    }
  }

  BW_DEVICE void LoadWeights(int slot) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      BW_UNROLL
      for (int p = 0; p < kParts; ++p) a_ring[slot][m][p] = LoadStream(next_unit[m] + p * 32);
      next_unit[m] += kUnitWords;
    }
  }
  BW_DEVICE void LoadX(int slot) {
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      BW_UNROLL
      for (int p = 0; p < kPairs; ++p) {
        BW_UNROLL
        for (int limb = 0; limb < kLimbs; ++limb) {
          if (rows_left[n])
            x_ring[slot][n][p][limb] = Load(next_x + limb * args.limb_stride + n * x_block + p * 32);
        }
      }
    }
    next_x += kPairs * 32;
  }
  BW_DEVICE void LoadScale(int set_index, int slot, int which) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      scale_ring[slot][which][m] =
          LoadRowPair(scale_at[m] + static_cast<int64_t>(set_index) * scale_step, half);
    }
  }
  BW_DEVICE void BeginScales(int segment, int begin) {
    set = kSetEnds == SetEnds::kEach     ? begin
          : kSetEnds == SetEnds::kHalves ? 2 * begin
                                         : Load(&weights.table.segments[segment].set_begin);
    set_units_left = set_units;
    if constexpr (!kRegular) {
      LoadScale(set, 0, 0);
      LoadScale(set + 1, 1, 0);
    }
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) next_scale[m] = scale_at[m] + static_cast<int64_t>(set) * scale_step;
    load_unit = begin, load_segment = segment, load_set = set, load_left = set_units;
    load_bound = FirstUnit(weights.table, segment + 1);
  }
  // The scales of the unit that is loaded into `slot`.
  BW_DEVICE void LoadUnitScales(int slot) {
    if constexpr (kSetEnds == SetEnds::kHalves || kSetEnds == SetEnds::kEach) {
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) {
        BW_UNROLL
        for (int i = 0; i < kSetsPerUnit; ++i) {
          scale_ring[slot][i][m] = LoadRowPair(next_scale[m], half);
          next_scale[m] += scale_step;
        }
      }
    } else if constexpr (kRegular) {
      while (load_unit == load_bound) load_bound = FirstUnit(weights.table, ++load_segment + 1);
      LoadScale(load_set, slot, 0);
      ++load_unit;
      if (--load_left == 0 || load_unit == load_bound) {
        ++load_set;
        load_left = set_units;
      }
    }
  }

  // The set's scale times its dot product, and its offset times the sum of x.
  BW_DEVICE void EndSet(int slot, int which) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const RowPair factor = Value(scale_ring[slot][which][m], half);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[m][n][c] = Fma(c < 2 ? factor.low : factor.high, dot[m][n][c], sum[m][n][c]);
          dot[m][n][c] = 0;
        }
      }
    }
    if (has_offsets) AddOffsets();
    ++set;
    if constexpr (!kRegular) {
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) scale_ring[0][0][m] = scale_ring[1][0][m];
      LoadScale(set + 1, 1, 0);
    }
  }
  BW_DEVICE void AddOffsets() {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const RowPair offset =
          Value(LoadRowPair(scale_at[m] + static_cast<int64_t>(set) * scale_step + to_offsets, half), half);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        if (n * 8 >= args.rows) continue;
        const float* x_sums = args.set_sums + (n * weights.table.sets + set) * 8 + 2 * (Lane() % 4);
        BW_UNROLL
        for (int c = 0; c < 4; ++c)
          sum[m][n][c] = Fma(c < 2 ? offset.low : offset.high, Load(x_sums + c % 2), sum[m][n][c]);
      }
    }
  }

  BW_DEVICE void GetOperand(int x_slot, int step, int n, int limb, uint32_t (&b)[2]) const {
    const Words4& words = x_ring[x_slot][n][step / 2][limb];
    b[0] = step % 2 == 0 ? words.x : words.z;
    b[1] = step % 2 == 0 ? words.y : words.w;
  }
  BW_DEVICE void MultiplyStepByLimbs(int slot, int x_slot, int step) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      uint32_t a[kLimbs][4];
      UnpackLimbs<kFormat>(a_ring[slot][m], step, a);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        ForLimbProducts<kLimbs>([&](int limb, int limb_of_x) {
          uint32_t b[2];
          GetOperand(x_slot, step, n, limb_of_x, b);
          Mma(limb + limb_of_x == 0 ? sum[m][n] : rest[m][n], a[limb], b);
        });
      }
    }
  }
  BW_DEVICE void MultiplyStep(int slot, int x_slot, int step) {
    uint32_t b[kTilesN][2];
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) GetOperand(x_slot, step, n, 0, b[n]);
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      uint32_t a[4];
      UnpackStep<kFormat>(a_ring[slot][m], step, magic, zero_point, a);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        if constexpr (kQuantized) {
          Mma(dot[m][n], a, b[n]);
        } else {
          Mma(sum[m][n], a, b[n]);
        }
      }
    }
  }
  BW_DEVICE void AddRest() {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) sum[m][n][c] += rest[m][n][c];
      }
    }
  }
  // `last`: of its segment, whose end is a set's end.
  BW_DEVICE void MultiplyUnit(int slot, int x_slot, int unit, bool last) {
    [[maybe_unused]] uint32_t ends = 0;
    if constexpr (kQuantized && !kRegular) ends = Load(weights.table.set_ends + unit);
    BW_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (kLimbs > 1) {
        MultiplyStepByLimbs(slot, x_slot, step);
      } else {
        MultiplyStep(slot, x_slot, step);
      }
      if constexpr (kQuantized && kSetEnds == SetEnds::kHalves) {
        if (step % 2 == 1) EndSet(slot, step / 2);
      } else if constexpr (kQuantized && !kRegular) {
        if (ends >> step & 1) EndSet(0, 0);
      }
    }
    if constexpr (kQuantized && kSetEnds == SetEnds::kEach) EndSet(slot, 0);
    if constexpr (kQuantized && kSetEnds == SetEnds::kUnits) {
      if (--set_units_left > 0 && !last) return;
      EndSet(slot, 0);
      set_units_left = set_units;
    }
  }

  // To shared memory: sums[column * kSumStride + row].
  BW_DEVICE void Write(int m, float* sums) const {
    const int g = Lane() / 4, t = Lane() % 4;
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      BW_UNROLL
      for (int c = 0; c < 4; ++c) sums[(n * 8 + 2 * t + c % 2) * kSumStride + g + c / 2 * 8] = sum[m][n][c];
    }
  }

  // The weights of the first units and their scales: they do not wait for the kernel before.
  BW_DEVICE void Begin(int segment, int begin, int end) {
    BW_UNROLL
    for (int i = 0; i < kDepth; ++i) {
      if (begin + i < end) LoadWeights(i);
    }
    if constexpr (kQuantized) {
      if (begin == end) return;
      BeginScales(segment, begin);
      BW_UNROLL
      for (int i = 0; i < kDepth; ++i) {
        if (begin + i < end) LoadUnitScales(i);
      }
    }
  }

  // Segments [segment, segment_end), units [begin, end); finish(segment) when a segment's sum is complete.
  template <typename Finish>
  BW_DEVICE void Run(int segment, int segment_end, int begin, int end, const Finish& finish) {
    BW_UNROLL
    for (int i = 0; i < kDepthX; ++i) {
      if (begin + i < end) LoadX(i);
    }
    int bound = FirstUnit(weights.table, segment + 1);
    const auto finish_segment = [&] {
      if constexpr (kLimbs > 1) AddRest();
      finish(segment++);
      Clear();
      bound = FirstUnit(weights.table, segment + 1);
    };
    for (int unit = begin; unit < end; unit += kDepth) {
      BW_UNROLL
      for (int i = 0; i < kDepth; ++i) {
        if (unit + i >= end) break;
        while (unit + i == bound) finish_segment();  // NOLINT(bugprone-infinite-loop): it moves `bound` on
        MultiplyUnit(i, i % kDepthX, unit + i, unit + i + 1 == bound);
        if (unit + i + kDepth < end) {
          LoadWeights(i);
          if constexpr (kQuantized) LoadUnitScales(i);
        }
        if (unit + i + kDepthX < end) LoadX(i % kDepthX);
      }
    }
    while (segment < segment_end) finish_segment();  // NOLINT(bugprone-infinite-loop): it moves `segment` on
  }
};

// Sums of neighbouring segments, `step` floats apart, halves first.
template <int kCount>
BW_DEVICE float BalancedSum(const float* sums, int step) {
  if constexpr (kCount == 1) {
    return sums[0];
  } else {
    return BalancedSum<kCount / 2>(sums, step) + BalancedSum<kCount / 2>(sums + kCount / 2 * step, step);
  }
}

BW_DEVICE float StackSum(const WeightTable& table, const Root& root, const float* first, int step) {
  float stack[kSumsMax];
  int depth = 0;
  for (int i = 0; i < root.segment_end - root.segment_begin; ++i) {
    stack[depth++] = first[i * step];
    for (int n = Load(&table.segments[root.segment_begin + i].additions); n > 0; --n) {
      --depth;
      stack[depth - 1] += stack[depth];
    }
  }
  return stack[0];
}

// The sum of a root's segments; segment s lies at sums + s * step.
BW_DEVICE float SumRoot(const WeightTable& table, const Root& root, const float* sums, int step) {
  const int count = root.segment_end - root.segment_begin;
  const float* first = sums + root.segment_begin * step;
  if (root.order == Root::kBalanced) {
    if (count == 16) return BalancedSum<16>(first, step);
    if (count == 8) return BalancedSum<8>(first, step);
    if (count == 4) return BalancedSum<4>(first, step);
    if (count == 2) return BalancedSum<2>(first, step);
    return first[0];
  }
  if (root.order == Root::kFold) {
    float sum = first[0];
    BW_UNROLL_8
    for (int i = 1; i < count; ++i) sum += first[i * step];
    return sum;
  }
  return StackSum(table, root, first, step);
}

// Writes the outputs of one tile, whose segments' sums are in shared memory.
template <int kTilesN>
BW_DEVICE void WriteTile(const StreamMatmulArgs& args, const StreamMatmulArgs::Output& output, int tile,
                         const float* sums) {
  const WeightTable& table = output.weights.table;
  constexpr int kStep = kTilesN * 8 * kSumStride;
  for (int e = ThreadIndex(); e < kTileRows * 8 * kTilesN; e += BlockThreads()) {
    const int row = e / kTileRows, column = tile * kTileRows + e % kTileRows;
    if (row >= args.rows || column >= output.weights.rows) continue;
    for (int r = 0; r < table.root_count; ++r) {
      const Root root =
          table.root_count == 1 ? Root{0, table.segment_count, table.order} : Load(&table.roots[r]);
      float sum = SumRoot(table, root, sums + row * kSumStride + e % kTileRows, kStep);
      if (output.bias != nullptr) sum += Load(output.bias + column);
      Store(output.y + r * output.root_stride + row * output.stride + column, sum);
    }
  }
}

constexpr int64_t StreamMatmulSharedBytes(int segments, int tiles_m, int tiles_n) {
  return static_cast<int64_t>(segments) * tiles_m * tiles_n * 8 * kSumStride * 4;
}

// Grid: a block for each kTilesM tiles of each output. Shared memory: StreamMatmulSharedBytes.
template <TensorFormat kFormat, SetEnds kSetEnds, int kTilesM, int kTilesN>
BW_DEVICE void StreamMatmul(const StreamMatmulArgs& args) {
  int block = BlockX(), index = 0;
  while (index + 1 < args.output_count) {
    const int blocks = (args.outputs[index].weights.tiles + kTilesM - 1) / kTilesM;
    if (block < blocks) break;
    block -= blocks;
    ++index;
  }
  const StreamMatmulArgs::Output& output = args.outputs[index];
  const WeightTable& table = output.weights.table;
  const int first_tile = block * kTilesM;
  auto* sums = reinterpret_cast<float*>(SharedMemory());
  constexpr int kStep = kTilesN * 8 * kSumStride;
  const int warps = BlockThreads() / 32;
  const int segment_begin = Warp() * table.segment_count / warps;
  const int segment_end = (Warp() + 1) * table.segment_count / warps;
  const int begin = FirstUnit(table, segment_begin), end = FirstUnit(table, segment_end);

  LetNextKernelStart();
  WarpStream<kFormat, kSetEnds, kTilesM, kTilesN> stream(args, output.weights, first_tile, begin);
  stream.Begin(segment_begin, begin, end);
  WaitForPreviousKernel();
  if (segment_begin < segment_end) {
    stream.Run(segment_begin, segment_end, begin, end, [&](int segment) {
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) stream.Write(m, sums + (m * table.segment_count + segment) * kStep);
    });
  }
  SyncBlock();
  BW_UNROLL
  for (int m = 0; m < kTilesM; ++m)
    WriteTile<kTilesN>(args, output, first_tile + m, sums + m * table.segment_count * kStep);
}

}  // namespace bellwether::gpu
