#pragma once

// y = x W^T for few rows: the weights are streamed once from device memory into registers, as tensor core
// fragments, and everything else hides behind that.
//
// A block owns kTilesM tiles of 16 outputs and all columns; each of its warps takes a run of segments.
// Weights are the M operand, rows of x (in blocks of 8) the N operand. When all segments are done their sums
// are added in shared memory, in the order of the root they belong to. No bit depends on the number of rows,
// of warps, or of tiles a warp takes.

#include "kernels/gpu/simt.h"
#include "kernels/gpu/unpack.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

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
  int32_t rows = 0;  // of x, at most 8 kTilesN
  uint32_t magic = kMagic;
  int32_t warp_segments = 0;  // that each warp of a block takes, as far as there are so many
  const Words4* x = nullptr;  // operand in fragments
  int64_t limb_stride = 0;    // words of x from a limb to the next
  const float* set_sums =
      nullptr;  // [rows / 8][sets][8]: sum of x over each set's columns; formats with offsets
};

// A value that all lanes have, kept in a register: the compiler would read a parameter again wherever it is
// used.
BW_DEVICE uint32_t InRegister(uint32_t value) { return Shuffle(Lane() == 0 ? value : 0u, 0); }

// One warp walks its segments: sums of each for kTilesM x kTilesN tiles. It goes by rounds of kDepth units,
// so that registers and offsets of addresses are known to the compiler.
template <WeightFormat kFormat, SetEnds kSetEnds, bool kHalfScales, bool kOffsets, int kTilesM, int kTilesN>
struct WarpStream {
  static constexpr bool kQuantized = IsQuantized(kFormat);
  static constexpr int kLimbs = Limbs(kFormat);
  static constexpr int kSteps = StepsPerUnit(kFormat);
  static constexpr int kParts = PartsPerUnit(kFormat);
  static constexpr int kPairs = kSteps / 2;                     // of steps: what a lane loads of x at once
  static constexpr int kUnitWords = kBlockTiles * kParts * 32;  // from a unit of a tile to its next
  static constexpr int kScaleStep = kHalfScales ? 32 : 64;      // bytes from set to set
  // Where a unit has whole sets, their scales and offsets travel with it; others are one or two sets ahead.
  static constexpr int kSetsPerUnit = kSetEnds == SetEnds::kEach       ? 1
                                      : kSetEnds == SetEnds::kHalves   ? 2
                                      : kSetEnds == SetEnds::kQuarters ? 4
                                                                       : 0;
  // Units of weights in flight: 2 to 4 KB a warp, which covers the latency of device memory, or half of that
  // where registers are needed for scales; and of x, which is nearer.
  static constexpr int kScaleWords = kSetsPerUnit * kTilesM * (kHalfScales ? 1 : 2) * (kOffsets ? 2 : 1);
  static constexpr int kDepth = kFormat == WeightFormat::kF16 || (kQuantized && kScaleWords <= 2) ? 4 : 2;
  static constexpr int kDepthX = 2;
  static constexpr int kScales = kSetsPerUnit > 0 ? kDepth* kSetsPerUnit : 2;

  const StreamMatmulArgs& args;
  const WeightView& weights;
  const uint32_t lane = static_cast<uint32_t>(ThreadIndex()) % 32;  // unsigned, as divisions are shorter then
  const uint32_t first_tile;
  const uint32_t magic, zero_point;
  const int64_t to_offsets;  // bytes from a scale to its offset
  // Of this lane: the first unit of the round that is not loaded yet, likewise its scales, and the round's
  // first unit of x.
  const Words4* next_unit;
  const Words4* next_x[kTilesN];
  const char* next_scale[kTilesM] = {};
  bool row_there[kTilesN];  // whether this lane's row of x is
  int set = 0;              // the round's first, or where sets are several units, the one at hand

  float sum[kTilesM][kTilesN][4];
  // Of the set at hand. NOLINTNEXTLINE(bugprone-branch-clone): kTilesM may be 1.
  float dot[kQuantized ? kTilesM : 1][kTilesN][4];
  Words4 a_ring[kDepth][kTilesM][kParts];
  // What products of further limbs add to `sum`.
  float rest[kLimbs > 1 ? kTilesM : 1][kTilesN][4];  // NOLINT(bugprone-branch-clone): likewise
  Words4 x_ring[kDepthX][kTilesN][kPairs][kLimbs];
  Words2 scale_ring[kScales][kTilesM];
  Words2 offset_ring[kOffsets ? kScales : 1][kTilesM];

  // 32 bits count the units and the sets of a matrix: there are 64 columns and more for each of 16 rows.
  BW_DEVICE WarpStream(const StreamMatmulArgs& a, const WeightView& w, uint32_t tile, uint32_t unit)
      : args(a),
        weights(w),
        first_tile(tile),
        magic(InRegister(a.magic)),
        zero_point(InRegister(ZeroPoint(w))),
        to_offsets(static_cast<const char*>(w.offsets) - static_cast<const char*>(w.scales)) {
    const uint32_t units = w.table.units;
    next_unit =
        static_cast<const Words4*>(w.values) + uint64_t{UnitIndex(tile, unit, units)} * (kParts * 32) + lane;
    for (uint32_t n = 0; n < kTilesN; ++n) {
      next_x[n] = a.x + uint64_t{n * units + unit} * (kPairs * 32) + lane;
      row_there[n] = static_cast<int>(n * 8 + lane / 4) < a.rows;
      for (int i = 0; i < kDepthX; ++i) {
        for (int p = 0; p < kPairs; ++p) {
          for (Words4& limb : x_ring[i][n][p])
            limb = Words4{0, 0, 0, 0};  // and so it stays for rows that are not there
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

  // Of two tiles the second may lie past the last one: values have room for it (weights.h), scales have not,
  // and its sums are not written.
  BW_DEVICE const char* Scale(int m, uint32_t index) const {
    const uint32_t tile = first_tile + (first_tile + m < static_cast<uint32_t>(weights.tiles) ? m : 0);
    return static_cast<const char*>(weights.scales) +
           uint64_t{tile * weights.table.sets + index} * kScaleStep + lane / 4 * (kScaleStep / 8);
  }
  BW_DEVICE static Words2 LoadPair(const char* at) {
    if constexpr (kHalfScales) return LoadRowPair(at, true);
    return Load(reinterpret_cast<const Words2*>(at));
  }
  // A set's scale and offset.
  BW_DEVICE void LoadScale(int slot, int m, const char* at) {
    scale_ring[slot][m] = LoadPair(at);
    if constexpr (kOffsets) offset_ring[slot][m] = LoadPair(at + to_offsets);
  }

  // Weights of unit `slot` of a round into their registers, and scales that travel with them.
  BW_DEVICE void LoadUnit(int slot) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      BW_UNROLL
      for (int p = 0; p < kParts; ++p)
        a_ring[slot][m][p] = LoadStream(next_unit + slot * kUnitWords + (m * kParts + p) * 32);
      BW_UNROLL
      for (int i = slot * kSetsPerUnit; i < (slot + 1) * kSetsPerUnit; ++i)
        LoadScale(i, m, next_scale[m] + i * kScaleStep);
    }
  }
  // `there`: whether the unit is.
  BW_DEVICE void LoadX(int unit, bool there) {
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      BW_UNROLL
      for (int p = 0; p < kPairs; ++p) {
        if (!there || !row_there[n]) continue;
        const Words4* const first = next_x[n] + (unit * kPairs + p) * 32;
        BW_UNROLL
        for (int limb = 0; limb < kLimbs; ++limb)
          x_ring[unit % kDepthX][n][p][limb] = Load(first + limb * args.limb_stride);
      }
    }
  }
  BW_DEVICE void LoadNextScale(int slot) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      LoadScale(slot, m, next_scale[m]);
      next_scale[m] += kScaleStep;
    }
  }
  // The units and scales that are loaded next are a round further on.
  BW_DEVICE void NextLoads() {
    next_unit += kDepth * kUnitWords;
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) next_scale[m] += kDepth * kSetsPerUnit * kScaleStep;
  }

  // Asks for `units` units from the next one on that is to be loaded, a round of them at most, and for their
  // scales, or the next ones.
  BW_DEVICE void PrefetchRound(uint32_t units) const {
    constexpr uint32_t kPieces = kTilesM * kParts * 8;  // of 64 bytes in a unit
    const auto* const values = reinterpret_cast<const char*>(next_unit - lane);
    BW_UNROLL
    for (uint32_t first = 0; first < kDepth * kPieces; first += 32) {
      const uint32_t unit = (first + lane) / kPieces, piece = (first + lane) % kPieces;
      if (unit < units) Prefetch64(values + unit * (kUnitWords * 16) + piece * 64);
    }
    if constexpr (kQuantized) {
      bool there = lane == 0 && units > 0;
      if constexpr (kSetsPerUnit > 0) {
        constexpr uint32_t kUnitScales = kSetsPerUnit * kScaleStep;
        there = lane < kDepth * kUnitScales / 64 && lane * 64 < units * kUnitScales;
      }
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) {
        const char* const scales = next_scale[m] - lane / 4 * (kScaleStep / 8) + lane * 64;
        if (there) Prefetch64(scales);
        if (kOffsets && there) Prefetch64(scales + to_offsets);
      }
    }
  }

  // The set's scale times its dot product, and its offset times the sum of x.
  BW_DEVICE void EndSet(int slot, int index) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const RowPair factor = Value(scale_ring[slot][m], kHalfScales);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[m][n][c] = Fma(c < 2 ? factor.low : factor.high, dot[m][n][c], sum[m][n][c]);
          dot[m][n][c] = 0;
        }
      }
    }
    if constexpr (kOffsets) AddOffsets(slot, index);
  }
  BW_DEVICE void AddOffsets(int slot, int index) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const RowPair offset = Value(offset_ring[slot][m], kHalfScales);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        if (n * 8 >= args.rows) continue;
        const auto* x_sums =
            reinterpret_cast<const Words2*>(args.set_sums) + (n * weights.table.sets + index) * 4 + lane % 4;
        const Words2 x_sum = Load(x_sums);
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[m][n][c] =
              Fma(c < 2 ? offset.low : offset.high, BitsFloat(c % 2 == 0 ? x_sum.x : x_sum.y), sum[m][n][c]);
        }
      }
    }
  }

  BW_DEVICE void GetOperand(int slot, int step, int n, int limb, uint32_t (&b)[2]) const {
    const Words4& words = x_ring[slot % kDepthX][n][step / 2][limb];
    b[0] = step % 2 == 0 ? words.x : words.z;
    b[1] = step % 2 == 0 ? words.y : words.w;
  }
  BW_DEVICE void MultiplyStepByLimbs(int slot, int step) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      uint32_t a[kLimbs][4];
      UnpackLimbs<kFormat>(a_ring[slot][m], step, a);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        ForLimbProducts<kLimbs>([&](int limb, int limb_of_x) {
          uint32_t b[2];
          GetOperand(slot, step, n, limb_of_x, b);
          Mma(limb + limb_of_x == 0 ? sum[m][n] : rest[m][n], a[limb], b);
        });
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
  BW_DEVICE void MultiplyStep(int slot, int step) {
    uint32_t b[kTilesN][2];
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) GetOperand(slot, step, n, 0, b[n]);
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
  BW_DEVICE void MultiplyUnit(int slot) {
    BW_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (kLimbs > 1) {
        MultiplyStepByLimbs(slot, step);
      } else {
        MultiplyStep(slot, step);
      }
      if constexpr (kSetsPerUnit > 0) {
        constexpr int kSetSteps = kSteps / kSetsPerUnit;
        const int i = slot * kSetsPerUnit + step / kSetSteps;
        if (step % kSetSteps == kSetSteps - 1) EndSet(i, set + i);
      }
    }
  }
  // Of sets of several units: whether they are four, and whether one ends with unit `slot` of a round.
  BW_DEVICE bool SetsOfFour() const { return weights.table.set_steps == 4 * kSteps; }
  BW_DEVICE bool SetEndsWith(int slot) const {
    static_assert(kDepth == 4 || !kQuantized || kSetEnds != SetEnds::kUnits);
    return slot == 3 || (slot == 1 && !SetsOfFour());
  }

  // To shared memory: sums[column * kSumStride + row], of which this lane's first is at `to`.
  BW_DEVICE void Write(int m, float* to) const {
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      BW_UNROLL
      for (int c = 0; c < 4; ++c) to[(n * 8 + c % 2) * kSumStride + c / 2 * 8] = sum[m][n][c];
    }
  }

  // The weights of the first units and their scales: they do not wait for the kernel before.
  BW_DEVICE void Begin(int begin, int units) {
    if constexpr (kQuantized) {
      if (units == 0) return;
      set = kSetsPerUnit > 0 ? begin * kSetsPerUnit : begin >> (SetsOfFour() ? 2 : 1);
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) next_scale[m] = Scale(m, set);
    }
    BW_UNROLL
    for (int i = 0; i < kDepth; ++i) {
      if (i < units) LoadUnit(i);
    }
    NextLoads();
    if constexpr (kQuantized && kSetsPerUnit == 0) {
      // Of sets that are whole units, the one that ends with a round's second unit and the one that ends with
      // its last; if they have four units there is only the latter.
      LoadNextScale(0);
      if (SetsOfFour()) {
        BW_UNROLL
        for (int m = 0; m < kTilesM; ++m) next_scale[m] -= kScaleStep;
      }
      LoadNextScale(1);
    }
    // What the next round reads is on its way too: a warp has few rounds, and may begin long before it is
    // allowed to go on.
    if (units > kDepth) PrefetchRound(units - kDepth);
  }

  // Segments [segment, segment_end), whose units are [unit, end); finish() when the next one's sum is
  // complete.
  template <typename Finish>
  BW_DEVICE void Run(int segment, int segment_end, int unit, int end, const Finish& finish) {
    const WeightTable& table = weights.table;
    // Units until the segment's end and until the last one's, from the round's first on.
    int segment_units = FirstUnit(table, segment + 1) - unit, units = end - unit;
    BW_UNROLL
    for (int i = 0; i < kDepthX; ++i) LoadX(i, i < units);
    // The segment that ends before unit `i` of the round, and those behind it that have no units; whether
    // there are more.
    const auto finish_segments = [&](int i) {
      while (segment_units == i) {
        if constexpr (kLimbs > 1) AddRest();
        finish();
        if (++segment == segment_end) return false;
        Clear();
        segment_units = FirstUnit(table, segment + 1) - unit;
      }
      return true;
    };
    if (!finish_segments(0)) return;
    for (;;) {
      BW_UNROLL
      for (int i = 0; i < kDepth; ++i) {
        MultiplyUnit(i);
        if (i + kDepth < units) LoadUnit(i);
        LoadX(i + kDepthX, i + kDepthX < units);
        if constexpr (kQuantized && kSetEnds == SetEnds::kUnits) {
          if (!SetEndsWith(i)) continue;
          EndSet(i / 2, set++);
          LoadNextScale(i / 2);
        }
        if (!finish_segments(i + 1)) return;
      }
      NextLoads();
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) next_x[n] += kDepth * kPairs * 32;
      set += kDepth * kSetsPerUnit;
      unit += kDepth;
      segment_units -= kDepth;
      units -= kDepth;
    }
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

// Writes the outputs of kTilesM tiles, whose segments' sums are in shared memory.
template <int kTilesM, int kTilesN>
BW_DEVICE void WriteTiles(const StreamMatmulArgs& args, const StreamMatmulArgs::Output& output,
                          int first_tile, const float* sums) {
  const WeightTable& table = output.weights.table;
  constexpr int kStep = kTilesN * 8 * kSumStride, kColumns = kTilesM * kTileRows;
  for (uint32_t e = ThreadIndex(); e < kColumns * 8 * kTilesN; e += BlockThreads()) {
    const int row = e / kColumns, column = first_tile * kTileRows + e % kColumns;
    if (row >= args.rows || column >= output.weights.rows) continue;
    const int tile = e % kColumns / kTileRows;
    const float* tile_sums = sums + tile * table.segment_count * kStep + row * kSumStride + e % kTileRows;
    for (int r = 0; r < table.root_count; ++r) {
      const Root root =
          table.root_count == 1 ? Root{0, table.segment_count, table.order} : Load(&table.roots[r]);
      float sum = SumRoot(table, root, tile_sums, kStep);
      if (output.bias != nullptr) sum += Load(output.bias + column);
      Store(output.y + r * output.root_stride + row * output.stride + column, sum);
    }
  }
}

constexpr int64_t StreamMatmulSharedBytes(int segments, int tiles_m, int tiles_n) {
  return static_cast<int64_t>(segments) * tiles_m * tiles_n * 8 * kSumStride * 4;
}

// The sums of all segments of kTilesM tiles to shared memory.
template <WeightFormat kFormat, SetEnds kSetEnds, bool kHalfScales, bool kOffsets, int kTilesM, int kTilesN>
BW_DEVICE void SumSegments(const StreamMatmulArgs& args, const WeightView& weights, int first_tile,
                           float* sums) {
  const WeightTable& table = weights.table;
  constexpr int kStep = kTilesN * 8 * kSumStride;
  const auto thread = static_cast<uint32_t>(ThreadIndex());
  const int warp =
      Shuffle(thread / 32, 0);  // as the compiler does not know that it is the same for all lanes
  const auto segment = [&](int i) { return i < table.segment_count ? i : table.segment_count; };
  const int segment_begin = segment(warp * args.warp_segments);
  const int segment_end = segment(segment_begin + args.warp_segments);
  const int begin = FirstUnit(table, segment_begin), end = FirstUnit(table, segment_end);

  WarpStream<kFormat, kSetEnds, kHalfScales, kOffsets, kTilesM, kTilesN> stream(args, weights, first_tile,
                                                                                begin);
  stream.Begin(begin, end - begin);
  WaitForPreviousKernel();
  if (segment_begin == segment_end) return;
  float* to = sums + segment_begin * kStep + 2 * (thread % 4) * kSumStride + thread % 32 / 4;
  stream.Run(segment_begin, segment_end, begin, end, [&] {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) stream.Write(m, to + m * table.segment_count * kStep);
    to += kStep;
  });
}

// Grid: a block for each kTilesM tiles of each output. Shared memory: StreamMatmulSharedBytes.
template <WeightFormat kFormat, SetEnds kSetEnds, int kTilesM, int kTilesN>
BW_DEVICE void StreamMatmul(const StreamMatmulArgs& args) {
  int block = BlockX();
  const StreamMatmulArgs::Output& output = OutputOf(args, kTilesM, block);
  const WeightView& weights = output.weights;
  const int first_tile = block * kTilesM;
  auto* sums = reinterpret_cast<float*>(SharedMemory());

  LetNextKernelStart();
  if (!IsQuantized(kFormat) || (!weights.half_scales && weights.offsets == nullptr)) {
    SumSegments<kFormat, kSetEnds, false, false, kTilesM, kTilesN>(args, weights, first_tile, sums);
  } else if (weights.offsets == nullptr) {
    SumSegments<kFormat, kSetEnds, true, false, kTilesM, kTilesN>(args, weights, first_tile, sums);
  } else if (!weights.half_scales) {
    SumSegments<kFormat, kSetEnds, false, true, kTilesM, kTilesN>(args, weights, first_tile, sums);
  } else {
    SumSegments<kFormat, kSetEnds, true, true, kTilesM, kTilesN>(args, weights, first_tile, sums);
  }
  SyncBlock();
  WriteTiles<kTilesM, kTilesN>(args, output, first_tile, sums);
}

}  // namespace bellwether::gpu
