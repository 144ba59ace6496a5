#pragma once

// y = x W^T for many rows on Hopper: 128 outputs x kRows (64 or 128) rows a block, by wgmma.
//
// One thread copies stages of four column steps into shared memory, weights (still packed, quantised ones
// too) beside pieces of the operand: both lie in memory as they are needed, so that a stage is a few
// contiguous copies. Two warpgroups take 64 outputs each: weights go from shared memory to registers
// (quantised ones become bf16 there, exactly) and are the register operand of wgmma.
//
// Registers hold few sums of that size at once, so a block computes one *part*: a run of segments whose sums
// add up with a stack of one, or of two (bf16 only: others need the room for a set's dot products, or for
// those of further limbs). A matrix with more than one part writes the sums of parts to a workspace, and
// SumTree (rows.h) adds them up.

#include "kernels/gpu/operand.h"
#include "kernels/gpu/simt.h"
#include "kernels/gpu/unpack.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

constexpr int kTileMatmulOutputs = kBlockTiles * kTileRows;  // two warpgroups of 64
constexpr int kTileMatmulThreads = 3 * 128;
constexpr int kStageSteps = 4;
constexpr int kStageHalves = kStageSteps / 2;  // of 32 columns

struct Part {
  int32_t segment_begin = 0, segment_end = 0;
};

struct TileMatmulArgs {
  struct Output {
    WeightView weights;
    // Sum of part p, row n, output m: y[p * part_stride + n * stride + m]
    float* y = nullptr;
    const float* bias = nullptr;  // if there is one part
    int64_t part_stride = 0;
    int64_t stride = 0;
  };
  Output outputs[kProductsMax];  // blocks of the first come first; all have the same table
  int32_t output_count = 0;
  int32_t rows = 0;
  uint32_t magic = kMagic;
  int32_t unused = 0;
  const Part* parts = nullptr;      // grid z
  const char* x = nullptr;          // operand in pieces; of MmaTileMatmul in fragments
  int64_t limb_stride = 0;          // bytes of x from a limb to the next
  const float* set_sums = nullptr;  // as in StreamMatmulArgs
};

constexpr int StageWeightBytes(WeightFormat format) {
  return kBlockTiles * (kStageSteps / StepsPerUnit(format)) * UnitBytes(format);
}
constexpr int StageLimbBytes(int rows) { return rows / 8 * kStageHalves * 512; }
constexpr int StageOperandBytes(WeightFormat format, int rows) {
  return Limbs(format) * StageLimbBytes(rows);
}
// As many stages as hide the latency of memory and fit.
constexpr int StageCount(WeightFormat format, int rows) {
  const int count = 196608 / (StageWeightBytes(format) + StageOperandBytes(format, rows));
  return count < 8 ? count : 8;
}
constexpr int TileMatmulSharedBytes(WeightFormat format, int rows) {
  return StageCount(format, rows) * (StageWeightBytes(format) + StageOperandBytes(format, rows) + 16);
}

template <int kValues>
BW_DEVICE void AddSums(float (&to)[kValues], const float (&value)[kValues]) {
  BW_UNROLL
  for (int i = 0; i < kValues; ++i) to[i] += value[i];
}

// The sum of a part: those of its segments, which sum_segment(segment, to) makes, added up.
template <int kStackDepth, int kValues, typename SumSegment>
BW_DEVICE void SumPart(const WeightTable& table, const Part& part, float (&bottom)[kValues],
                       const SumSegment& sum_segment) {
  float current[kValues];
  sum_segment(part.segment_begin, bottom);
  if constexpr (kStackDepth == 1) {
    for (int s = part.segment_begin + 1; s < part.segment_end; ++s) {
      sum_segment(s, current);
      AddSums(bottom, current);
    }
  } else {
    // What is on the stack above `bottom`. A part is cut so that no third sum is ever left there.
    float top[kValues];
    bool has_top = false;
    for (int s = part.segment_begin + 1; s < part.segment_end; ++s) {
      sum_segment(s, current);
      const int additions = Load(&table.segments[s].additions);
      if (!has_top && additions == 0) {
        BW_UNROLL
        for (int i = 0; i < kValues; ++i) top[i] = current[i];
        has_top = true;
        continue;
      }
      if (!has_top) {
        AddSums(bottom, current);
        continue;
      }
      AddSums(top, current);
      if (additions > 1) {
        AddSums(bottom, top);
        has_top = false;
      }
    }
  }
}

// A tile's sums of kRowBlocks x 8 rows: `sum` has a C fragment (simt.h) for each 8 of them.
template <int kRowBlocks>
BW_DEVICE void WriteSums(const TileMatmulArgs& args, const TileMatmulArgs::Output& output, int tile,
                         int first_row, const float* sum) {
  const int column = tile * kTileRows + Lane() / 4;
  float* y = output.y + BlockZ() * output.part_stride + column;
  BW_UNROLL
  for (int high = 0; high < 2; ++high) {
    if (column + 8 * high >= output.weights.rows) continue;
    const float bias = output.bias != nullptr ? Load(output.bias + column + 8 * high) : 0.0f;
    BW_UNROLL
    for (int i = 0; i < 2 * kRowBlocks; ++i) {
      const int row = first_row + i / 2 * 8 + 2 * (Lane() % 4) + i % 2;
      if (row >= args.rows) continue;
      const float value = sum[i / 2 * 4 + high * 2 + i % 2];
      Store(y + row * output.stride + 8 * high, output.bias != nullptr ? value + bias : value);
    }
  }
}

template <WeightFormat kFormat, int kRows, int kStackDepth>
struct TileMatmulBlock {
  static_assert(kStackDepth == 1 || (kStackDepth == 2 && kFormat == WeightFormat::kBF16));
  static constexpr int kStepsPerUnit = StepsPerUnit(kFormat);
  static constexpr int kParts = PartsPerUnit(kFormat);
  static constexpr int kUnitsPerStage = kStageSteps / kStepsPerUnit;
  static constexpr int kWeightBytes = StageWeightBytes(kFormat);
  static constexpr int kLimbs = Limbs(kFormat);
  static constexpr int kOperandBytes = StageOperandBytes(kFormat, kRows);
  static constexpr int kStages = StageCount(kFormat, kRows);
  static constexpr int kValues = kRows / 2;  // accumulators of a thread
  using UnitWords = Words4[kParts];

  const TileMatmulArgs& args;
  const TileMatmulArgs::Output& output;
  const Part part;
  const int block;  // of 128 outputs
  const int first_row;
  char* const shared;     // [kStages] operands, [kStages] weights: wgmma wants its operand aligned
  uint64_t* const full;   // [kStages] the copies of a stage have landed
  uint64_t* const empty;  // [kStages] both warpgroups have used it

  BW_DEVICE TileMatmulBlock(const TileMatmulArgs& a, const TileMatmulArgs::Output& o, int block_index)
      : args(a),
        output(o),
        part(Load(a.parts + BlockZ())),
        block(block_index),
        first_row(BlockX() * kRows),
        shared(SharedMemory()),
        full(reinterpret_cast<uint64_t*>(shared + kStages * (kWeightBytes + kOperandBytes))),
        empty(full + kStages) {}

  BW_DEVICE char* StageOperand(int stage, int limb) const {
    return shared + stage * kOperandBytes + limb * StageLimbBytes(kRows);
  }
  BW_DEVICE char* StageWeights(int stage) const {
    return shared + kStages * kOperandBytes + stage * kWeightBytes;
  }

  // One thread keeps the stages filled.
  BW_DEVICE void Produce() const {
    const WeightTable& table = output.weights.table;
    const auto* weights = static_cast<const char*>(output.weights.values);
    const int64_t halves = static_cast<int64_t>(table.units) * kStepsPerUnit / 2;  // of 32 columns in all
    const int pieces = (args.rows - first_row + kPieceRows - 1) / kPieceRows;
    const int row_blocks = pieces < kRows / kPieceRows ? pieces : kRows / kPieceRows;
    int round = 0;
    for (int s = part.segment_begin; s < part.segment_end; ++s) {
      const int end = FirstUnit(table, s + 1);
      for (int unit = FirstUnit(table, s); unit < end; unit += kUnitsPerStage, ++round) {
        const int stage = round % kStages;
        if (round >= kStages) BarrierWait(&empty[stage], (round / kStages + 1) % 2);
        const int units = end - unit < kUnitsPerStage ? end - unit : kUnitsPerStage;
        const int weight_bytes = units * kBlockTiles * UnitBytes(kFormat);
        const int half = unit * kStepsPerUnit / 2, half_count = units * kStepsPerUnit / 2;
        BarrierArriveExpect(&full[stage], weight_bytes + kLimbs * row_blocks * half_count * 4096);
        CopyBulk(StageWeights(stage), weights + UnitOffset(kFormat, block * kBlockTiles, unit, table.units),
                 weight_bytes, &full[stage]);
        for (int limb = 0; limb < kLimbs; ++limb) {
          for (int r = 0; r < row_blocks; ++r) {
            for (int h = 0; h < half_count; ++h) {
              CopyBulk(StageOperand(stage, limb) + (h * (kRows / kPieceRows) + r) * 4096,
                       args.x + limb * args.limb_stride +
                           ((first_row / kPieceRows + r) * halves + half + h) * 4096,
                       4096, &full[stage]);
            }
          }
        }
      }
    }
  }

  // Waits for a stage and takes this warp's weights of it.
  BW_DEVICE void TakeWeights(int group, int round, UnitWords (&weights)[kUnitsPerStage]) const {
    const int stage = round % kStages;
    BarrierWait(&full[stage], round / kStages % 2);
    const auto* words = reinterpret_cast<const Words4*>(StageWeights(stage)) +
                        (group * 4 + Warp() % 4) * kParts * 32 + Lane();
    BW_UNROLL
    for (int u = 0; u < kUnitsPerStage; ++u) {
      BW_UNROLL
      for (int p = 0; p < kParts; ++p) weights[u][p] = words[(u * kBlockTiles * kParts + p) * 32];
    }
  }
  BW_DEVICE SharedTile StepOperand(int round, int step, int limb = 0) const {
    return {StageOperand(round % kStages, limb) + step / 2 * (kRows / 8 * 512) + step % 2 * 256, 128, 512};
  }
  BW_DEVICE void ReleaseStage(int round) const {
    if (ThreadIndex() % 128 == 0) BarrierArrive(&empty[round % kStages]);
  }
  BW_DEVICE static void Zero(float (&values)[kValues]) {
    BW_UNROLL
    for (int i = 0; i < kValues; ++i) values[i] = 0;
  }

  // Issues the products of one stage, of which `units` units are there.
  BW_DEVICE void IssueStage(int round, int units, const UnitWords (&weights)[kUnitsPerStage], bool fresh,
                            float (&sum)[kValues]) const {
    WgmmaFence();
    BW_UNROLL
    for (int step = 0; step < kStageSteps; ++step) {
      if (step / kStepsPerUnit >= units) break;
      uint32_t a[4];
      UnpackStep<kFormat>(weights[step / kStepsPerUnit], step % kStepsPerUnit, kMagic, 0, a);
      Wgmma<kRows>(sum, a, StepOperand(round, step), !(fresh && step == 0));
    }
    WgmmaCommit();
  }

  // The sum of one segment of bf16 weights into `sum`; `round` counts stages. While the tensor cores work on
  // a stage, the weights of the next one come from shared memory to registers.
  BW_DEVICE void SumFloats(int group, int begin, int end, int& round, float (&sum)[kValues]) const {
    if (begin == end) return Zero(sum);
    UnitWords even[kUnitsPerStage], odd[kUnitsPerStage];
    TakeWeights(group, round, even);
    bool fresh = true;
    for (int unit = begin;;) {
      IssueStage(round, end - unit, even, fresh, sum);
      if (!fresh) {
        WgmmaWait<1>();
        ReleaseStage(round - 1);
      }
      fresh = false;
      ++round;
      if ((unit += kUnitsPerStage) >= end) break;
      TakeWeights(group, round, odd);
      IssueStage(round, end - unit, odd, false, sum);
      WgmmaWait<1>();
      ReleaseStage(round - 1);
      ++round;
      if ((unit += kUnitsPerStage) >= end) break;
      TakeWeights(group, round, even);
    }
    WgmmaWait<0>();
    ReleaseStage(round - 1);
  }

  // The same for weights of several limbs: the products of the first ones have a sum of their own.
  BW_DEVICE void SumLimbs(int group, int begin, int end, int& round, float (&sum)[kValues]) const {
    float rest[kValues];
    Zero(sum);
    Zero(rest);
    for (int unit = begin; unit < end; unit += kUnitsPerStage, ++round) {
      UnitWords weights[kUnitsPerStage];
      TakeWeights(group, round, weights);
      BW_UNROLL
      for (int step = 0; step < kStageSteps; ++step) {
        if (step / kStepsPerUnit >= end - unit) break;
        uint32_t a[kLimbs][4];
        UnpackLimbs<kFormat>(weights[step / kStepsPerUnit], step % kStepsPerUnit, a);
        WgmmaFence();
        ForLimbProducts<kLimbs>([&](int limb, int limb_of_x) {
          Wgmma<kRows>(limb + limb_of_x == 0 ? sum : rest, a[limb], StepOperand(round, step, limb_of_x),
                       true);
        });
        WgmmaCommit();
      }
      WgmmaWait<0>();
      ReleaseStage(round);
    }
    AddSums(sum, rest);
  }

  // What a set's dot products, and the sums of its x, are multiplied by for this lane's rows, as it is
  // stored.
  struct Factors {
    Words2 scale, offset;
  };
  BW_DEVICE Factors LoadFactors(const char* scale_at) const {
    const WeightView& weights = output.weights;
    Factors factors{LoadRowPair(scale_at, weights.half_scales), {}};
    if (weights.offsets == nullptr) return factors;
    const int64_t to_offset =
        static_cast<const char*>(weights.offsets) - static_cast<const char*>(weights.scales);
    factors.offset = LoadRowPair(scale_at + to_offset, weights.half_scales);
    return factors;
  }

  BW_DEVICE void EndSet(int set, const Factors& factors, const float (&dot)[kValues],
                        float (&sum)[kValues]) const {
    const WeightView& weights = output.weights;
    const RowPair scale = Value(factors.scale, weights.half_scales);
    BW_UNROLL
    for (int i = 0; i < kValues; ++i) sum[i] = Fma(i % 4 < 2 ? scale.low : scale.high, dot[i], sum[i]);
    if (weights.offsets == nullptr) return;
    const RowPair offset = Value(factors.offset, weights.half_scales);
    BW_UNROLL
    for (int n = 0; n < kRows / 8; ++n) {
      const int row_block = first_row / 8 + n;
      if (row_block * 8 >= args.rows) break;
      const float* const x_sums =
          args.set_sums + (static_cast<int64_t>(row_block) * weights.table.sets + set) * 8;
      const Words2 x = Load(reinterpret_cast<const Words2*>(x_sums + 2 * (Lane() % 4)));
      BW_UNROLL
      for (int c = 0; c < 4; ++c) {
        sum[n * 4 + c] =
            Fma(c < 2 ? offset.low : offset.high, BitsFloat(c % 2 == 0 ? x.x : x.y), sum[n * 4 + c]);
      }
    }
  }

  // The same for quantised weights: the dot product of each set is finished before its scale is applied.
  // Scales come from memory two sets ahead, as a set takes less time than that.
  BW_DEVICE void SumQuantized(int group, int begin, int end, int& round, float (&sum)[kValues]) const {
    const WeightView& weights = output.weights;
    int set = FirstSet<kFormat>(weights.table, begin);
    const uint32_t zero_point = ZeroPoint(weights);
    const int tile = block * kBlockTiles + group * 4 + Warp() % 4;
    const int safe_tile = tile < weights.tiles ? tile : weights.tiles - 1;
    const int row_bytes = weights.half_scales ? 4 : 8, set_bytes = 8 * row_bytes;
    const char* next = static_cast<const char*>(weights.scales) +
                       (static_cast<int64_t>(safe_tile) * weights.table.sets + set) * set_bytes +
                       Lane() / 4 * row_bytes;
    Factors factors{}, following{};
    if (begin < end) {  // else there may be no scales at all
      factors = LoadFactors(next);
      following = LoadFactors(next += set_bytes);
    }
    float dot[kValues];
    Zero(sum);
    bool fresh = true;
    for (int unit = begin; unit < end; unit += kUnitsPerStage, ++round) {
      UnitWords unit_words[kUnitsPerStage];
      TakeWeights(group, round, unit_words);
      BW_UNROLL
      for (int u = 0; u < kUnitsPerStage; ++u) {
        if (unit + u >= end) break;
        BW_UNROLL
        for (int s = 0; s < kStepsPerUnit; ++s) {
          uint32_t a[4];
          UnpackStep<kFormat>(unit_words[u], s, args.magic, zero_point, a);
          WgmmaFence();
          Wgmma<kRows>(dot, a, StepOperand(round, u * kStepsPerUnit + s), !fresh);
          WgmmaCommit();
          fresh = false;
          if (EndsSet(weights.table, (unit + u) * kStepsPerUnit + s)) {
            WgmmaWait<0>();
            EndSet(set++, factors, dot, sum);
            factors = following;
            following = LoadFactors(next += set_bytes);
            fresh = true;
          }
        }
      }
      WgmmaWait<0>();
      ReleaseStage(round);
    }
  }

  BW_DEVICE void SumSegment(int group, int segment, int& round, float (&sum)[kValues]) const {
    const WeightTable& table = output.weights.table;
    const int begin = FirstUnit(table, segment), end = FirstUnit(table, segment + 1);
    if constexpr (IsQuantized(kFormat)) {
      SumQuantized(group, begin, end, round, sum);
    } else if constexpr (kLimbs > 1) {
      SumLimbs(group, begin, end, round, sum);
    } else {
      SumFloats(group, begin, end, round, sum);
    }
  }

  BW_DEVICE void Consume(int group) const {
    float sum[kValues];
    int round = 0;
    SumPart<kStackDepth>(output.weights.table, part, sum,
                         [&](int segment, float(&to)[kValues]) { SumSegment(group, segment, round, to); });
    WriteSums<kRows / 8>(args, output, block * kBlockTiles + group * 4 + Warp() % 4, first_row, sum);
  }
};

// Grid: x: ceil(rows / kRows), y: 128 outputs each of all outputs, z: parts. Threads: kTileMatmulThreads.
template <WeightFormat kFormat, int kRows, int kStackDepth>
BW_DEVICE void TileMatmul(const TileMatmulArgs& args) {
  int block_index = BlockY();
  const TileMatmulArgs::Output& output = OutputOf(args, kBlockTiles, block_index);
  const TileMatmulBlock<kFormat, kRows, kStackDepth> block(args, output, block_index);
  if (ThreadIndex() == 0) {
    for (int stage = 0; stage < block.kStages; ++stage) {
      BarrierInit(&block.full[stage], 1);
      BarrierInit(&block.empty[stage], 2);
    }
    FenceBarrierInit();
  }
  SyncBlock();
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int group = ThreadIndex() / 128;
  if (group == 2) {
    LowerRegisters<24>();
    if (ThreadIndex() == 256) block.Produce();
  } else {
    RaiseRegisters<240>();
    block.Consume(group);
  }
}

}  // namespace bellwether::gpu
