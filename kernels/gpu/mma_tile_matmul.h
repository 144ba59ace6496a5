#pragma once

// y = x W^T for many rows on cards without wgmma: 128 outputs x 64 rows a block, by mma.
//
// A stage in shared memory is one unit of 128 outputs, packed as it is in device memory, beside the same
// columns of 64 rows of the operand; all but one of a few are on their way. Four warps take 32 outputs and
// all rows each. Fragments of either operand are 16 bytes a lane, of weights those that the lane itself has
// copied; quantised weights become bf16 in one warp only.
//
// What a block computes is a part, as in tile_matmul.h. Its units follow each other across segments, and so
// do the stages. Sums, dot products and the sum below them take three quarters of the registers, so no warp
// could have more rows.

#include "kernels/gpu/operand.h"
#include "kernels/gpu/simt.h"
#include "kernels/gpu/tile_matmul.h"
#include "kernels/gpu/unpack.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

constexpr int kMmaTileRows = 64;
constexpr int kMmaTileThreads = 4 * 32;
// Two blocks fit into a multiprocessor of the smallest cards (100 KiB), and need their registers; of fp32
// one.
constexpr int MmaTileSharedBytes(WeightFormat format) {
  return (format == WeightFormat::kF32 ? 96 : 48) << 10;
}

template <WeightFormat kFormat, int kStackDepth>
struct MmaTileBlock {
  static_assert(kStackDepth == 1 || (kStackDepth == 2 && kFormat == WeightFormat::kBF16));
  static constexpr bool kQuantized = IsQuantized(kFormat);
  static constexpr int kLimbs = Limbs(kFormat);
  static constexpr int kParts = PartsPerUnit(kFormat);
  static constexpr int kPairs = StepsPerUnit(kFormat) / 2;       // of steps: what a lane loads of x at once
  static constexpr int kTilesM = 2, kTilesN = kMmaTileRows / 8;  // of a warp
  static constexpr int kTileValues = 4 * kTilesN;                // accumulators of a thread, for one tile
  static constexpr int kValues = kTilesM * kTileValues;          // for all
  static constexpr int kHeldN = kQuantized ? 2 : 4;  // blocks of rows whose fragments are held at once
  // In words of 16 bytes: of a stage, weights and the limbs of the operand.
  static constexpr int kWeightWords = kBlockTiles * kParts * 32;
  static constexpr int kLimbWords = kTilesN * kPairs * 32;
  static constexpr int kStageWords = kWeightWords + kLimbs * kLimbWords;
  static constexpr int kStages = MmaTileSharedBytes(kFormat) / (kStageWords * 16);
  static constexpr int kCopiedBlocks = kTilesN / 4;  // of rows, by each warp

  const TileMatmulArgs& args;
  const TileMatmulArgs::Output& output;
  const Part part;
  const int first_tile;  // of this warp
  const int row_blocks;  // of 8, from this block's first on
  const uint32_t magic, zero_point;
  const bool half;

  int unit, end;  // that is multiplied next, and behind the part's last one
  int stage = 0;  // of `unit`
  const Words4* next_unit;
  const Words4* next_x;  // of the first block of rows that this warp copies
  // Quantised weights: the set at hand and its scales.
  int set = 0;
  const char* scale_at = nullptr;  // of this lane's rows of the first tile
  int to_second = 0;               // bytes to the second tile's
  Words2 scale[kTilesM];

  BW_DEVICE MmaTileBlock(const TileMatmulArgs& a, const TileMatmulArgs::Output& o, int block)
      : args(a),
        output(o),
        part(Load(a.parts + BlockZ())),
        first_tile(block * kBlockTiles + Warp() * kTilesM),
        row_blocks((a.rows - first_row() + 7) / 8),
        magic(a.magic),
        zero_point(ZeroPoint(o.weights)),
        half(o.weights.half_scales) {
    const WeightTable& table = o.weights.table;
    unit = FirstUnit(table, part.segment_begin);
    end = FirstUnit(table, part.segment_end);
    next_unit = static_cast<const Words4*>(o.weights.values) +
                UnitOffset(kFormat, first_tile, unit, table.units) / static_cast<int64_t>(sizeof(Words4)) +
                Lane();
    next_x =
        reinterpret_cast<const Words4*>(a.x) + Lane() +
        (static_cast<int64_t>(first_row() / 8 + Warp() * kCopiedBlocks) * table.units + unit) * kPairs * 32;
    if constexpr (kQuantized) {
      if (unit < end) BeginScales();
    }
  }

  BW_DEVICE static int first_row() { return BlockX() * kMmaTileRows; }
  BW_DEVICE void BeginScales() {
    const WeightView& weights = output.weights;
    set = FirstSet<kFormat>(weights.table, unit);
    // Past the last tile the last one's are read, and its sums are not written.
    const int last = weights.tiles - 1, tile = first_tile < last ? first_tile : last;
    scale_at = static_cast<const char*>(weights.scales) + Lane() / 4 * (half ? 4 : 8) +
               (static_cast<int64_t>(tile) * weights.table.sets + set) * ScaleStep();
    to_second = first_tile < last ? weights.table.sets * ScaleStep() : 0;
    LoadScales();
  }
  BW_DEVICE int ScaleStep() const { return half ? 32 : 64; }  // bytes from set to set
  BW_DEVICE void LoadScales() {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) scale[m] = LoadRowPair(scale_at + m * to_second, half);
  }

  BW_DEVICE Words4* Stage(int index) const {
    return reinterpret_cast<Words4*>(SharedMemory()) + index * kStageWords;
  }
  // Copies the unit that is `ahead` of the one at hand, if there is one, as a group of its own.
  BW_DEVICE void CopyUnit(int ahead, int to) {
    if (unit + ahead < end) {
      Words4* const weights = Stage(to) + Warp() * kTilesM * kParts * 32 + Lane();
      BW_UNROLL
      for (int i = 0; i < kTilesM * kParts; ++i) CopyAsync16(weights + i * 32, next_unit + i * 32);
      next_unit += kWeightWords;
      Words4* const x = Stage(to) + kWeightWords + Warp() * kCopiedBlocks * kPairs * 32 + Lane();
      BW_UNROLL
      for (int n = 0; n < kCopiedBlocks; ++n) {
        if (Warp() * kCopiedBlocks + n >= row_blocks) break;
        const Words4* const from =
            next_x + static_cast<int64_t>(n) * output.weights.table.units * kPairs * 32;
        BW_UNROLL
        for (int i = 0; i < kLimbs * kPairs; ++i) {
          const int limb = i / kPairs, p = i % kPairs;
          CopyAsync16(x + limb * kLimbWords + (n * kPairs + p) * 32,
                      from + limb * (args.limb_stride / 16) + p * 32);
        }
      }
      next_x += kPairs * 32;
    }
    CopyAsyncCommit();
  }

  // Steps [kBegin, kEnd) of a pair.
  template <int kBegin, int kEnd>
  BW_DEVICE void Multiply(const Words4 (&packed)[kTilesM][kParts], const Words4* x, int pair,
                          float (&sums)[kValues]) const {
    uint32_t a[2][kTilesM][4];
    BW_UNROLL
    for (int step = kBegin; step < kEnd; ++step) {
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) UnpackStep<kFormat>(packed[m], step, magic, zero_point, a[step][m]);
    }
    BW_UNROLL
    for (int first = 0; first < kTilesN; first += kHeldN) {
      if (first >= row_blocks) break;
      Words4 words[kHeldN];
      BW_UNROLL
      for (int n = 0; n < kHeldN; ++n) words[n] = x[((first + n) * kPairs + pair) * 32];
      BW_UNROLL
      for (int step = kBegin; step < kEnd; ++step) {
        BW_UNROLL
        for (int n = 0; n < kHeldN; ++n) {
          const uint32_t b[2] = {step == 0 ? words[n].x : words[n].z, step == 0 ? words[n].y : words[n].w};
          BW_UNROLL
          for (int m = 0; m < kTilesM; ++m) {
            float* const at = sums + m * kTileValues + (first + n) * 4;
            float c[4] = {at[0], at[1], at[2], at[3]};
            Mma(c, a[step][m], b);
            BW_UNROLL
            for (int i = 0; i < 4; ++i) at[i] = c[i];
          }
        }
      }
    }
  }

  // The steps of a unit of several limbs: `rest` is what products of others than the first ones add.
  BW_DEVICE void MultiplyLimbs(const Words4* weights, const Words4* x, float (&sums)[kValues],
                               float (&rest)[kValues]) const {
    Words4 packed[kTilesM][kParts];
    BW_UNROLL
    for (int i = 0; i < kTilesM * kParts; ++i) packed[i / kParts][i % kParts] = weights[i * 32];
    BW_UNROLL
    for (int step = 0; step < 2; ++step) {
      uint32_t a[kTilesM][kLimbs][4];
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) UnpackLimbs<kFormat>(packed[m], step, a[m]);
      BW_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        if (n >= row_blocks) break;
        uint32_t b[kLimbs][2];
        BW_UNROLL
        for (int limb = 0; limb < kLimbs; ++limb) {
          const Words2 words = reinterpret_cast<const Words2*>(x + limb * kLimbWords + n * 32)[step];
          b[limb][0] = words.x, b[limb][1] = words.y;
        }
        BW_UNROLL
        for (int m = 0; m < kTilesM; ++m) {
          ForLimbProducts<kLimbs>([&](int limb, int limb_of_x) {
            float* const at = (limb + limb_of_x == 0 ? sums : rest) + m * kTileValues + n * 4;
            float c[4] = {at[0], at[1], at[2], at[3]};
            Mma(c, a[m][limb], b[limb_of_x]);
            BW_UNROLL
            for (int i = 0; i < 4; ++i) at[i] = c[i];
          });
        }
      }
    }
  }

  // The set's scale times its dot product, and its offset times the sum of x.
  BW_DEVICE void EndSet(float (&dot)[kValues], float (&sum)[kValues]) {
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const RowPair factor = Value(scale[m], half);
      BW_UNROLL
      for (int i = m * kTileValues; i < (m + 1) * kTileValues; ++i) {
        sum[i] = Fma(i % 4 < 2 ? factor.low : factor.high, dot[i], sum[i]);
        dot[i] = 0;
      }
    }
    if (output.weights.offsets != nullptr) AddOffsets(sum);
    ++set;
    scale_at += ScaleStep();
    LoadScales();
  }
  BW_DEVICE void AddOffsets(float (&sum)[kValues]) const {
    const WeightView& weights = output.weights;
    const int64_t to_offsets =
        static_cast<const char*>(weights.offsets) - static_cast<const char*>(weights.scales);
    RowPair offset[kTilesM];
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m)
      offset[m] = Value(LoadRowPair(scale_at + to_offsets + m * to_second, half), half);
    BW_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      if (n >= row_blocks) break;
      const float* x_sums = args.set_sums +
                            (static_cast<int64_t>(first_row() / 8 + n) * weights.table.sets + set) * 8 +
                            2 * (Lane() % 4);
      const float low = Load(x_sums), high = Load(x_sums + 1);
      BW_UNROLL
      for (int m = 0; m < kTilesM; ++m) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          float& to = sum[m * kTileValues + n * 4 + c];
          to = Fma(c < 2 ? offset[m].low : offset[m].high, c % 2 == 0 ? low : high, to);
        }
      }
    }
  }

  // The steps of a unit of one limb, the first of which is step `step` of the matrix.
  BW_DEVICE void MultiplySteps(const Words4* weights, const Words4* x, int step, float (&dot)[kValues],
                               float (&sum)[kValues]) {
    for (int pair = 0; pair < kPairs; ++pair) {
      Words4 packed[kTilesM][kParts];
      BW_UNROLL
      for (int i = 0; i < kTilesM * kParts; ++i) {
        if constexpr (kFormat == WeightFormat::kInt4) {
          const Words2 words = reinterpret_cast<const Words2*>(weights + i * 32)[pair];
          packed[i][0] = Words4{words.x, words.y, 0, 0};
        } else {
          packed[i / kParts][i % kParts] = weights[i * 32];
        }
      }
      if constexpr (kQuantized) {
        if (EndsSet(output.weights.table, step + 2 * pair)) {
          Multiply<0, 1>(packed, x, pair, dot);
          EndSet(dot, sum);
          Multiply<1, 2>(packed, x, pair, dot);
        } else {
          Multiply<0, 2>(packed, x, pair, dot);
        }
        if (EndsSet(output.weights.table, step + 2 * pair + 1)) EndSet(dot, sum);
      } else {
        Multiply<0, 2>(packed, x, pair, sum);
      }
    }
  }

  // `dot` is that of the set at hand, or what MultiplyLimbs calls rest.
  BW_DEVICE void MultiplyUnit(float (&dot)[kValues], float (&sum)[kValues]) {
    CopyAsyncWait<kStages - 2>();
    SyncBlock();  // the unit is there, and nobody reads the one before any more
    CopyUnit(kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
    const Words4* const weights = Stage(stage) + Warp() * kTilesM * kParts * 32 + Lane();
    const Words4* const x = Stage(stage) + kWeightWords + Lane();
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if constexpr (kLimbs > 1) {
      MultiplyLimbs(weights, x, sum, dot);
    } else {
      MultiplySteps(weights, x, unit * StepsPerUnit(kFormat), dot, sum);
    }
    ++unit;
  }

  BW_DEVICE void SumSegment(int segment, float (&sum)[kValues]) {
    const int bound = FirstUnit(output.weights.table, segment + 1);
    [[maybe_unused]] float dot[kValues];
    BW_UNROLL
    for (int i = 0; i < kValues; ++i) sum[i] = dot[i] = 0;
    while (unit < bound) MultiplyUnit(dot, sum);
    if constexpr (kLimbs > 1) AddSums(sum, dot);
  }

  BW_DEVICE void Run() {
    BW_UNROLL
    for (int i = 0; i < kStages - 1; ++i) CopyUnit(i, i);
    float sum[kValues];
    SumPart<kStackDepth>(output.weights.table, part, sum,
                         [&](int segment, float(&to)[kValues]) { SumSegment(segment, to); });
    BW_UNROLL
    for (int m = 0; m < kTilesM; ++m)
      WriteSums<kTilesN>(args, output, first_tile + m, first_row(), sum + m * kTileValues);
  }
};

// Grid: x: ceil(rows / kMmaTileRows), y: 128 outputs each of all outputs, z: parts. Threads: kMmaTileThreads.
// Shared memory: MmaTileSharedBytes. The operand is in fragments.
template <WeightFormat kFormat, int kStackDepth>
BW_DEVICE void MmaTileMatmul(const TileMatmulArgs& args) {
  int block = BlockY();
  const TileMatmulArgs::Output& output = OutputOf(args, kBlockTiles, block);
  LetNextKernelStart();
  WaitForPreviousKernel();
  MmaTileBlock<kFormat, kStackDepth>(args, output, block).Run();
}

}  // namespace bellwether::gpu
