#pragma once

// Weight matrices as GPU kernels read them: W [rows, cols], y = x W^T, outputs in tiles of 16, columns in
// steps of 16.
//
// Columns. A matrix is cut into segments, each summed on its own from 0. A segment's columns are cut into
// steps of at most 16 that share a weight group, ascending; what a step has fewer, and the steps that fill up
// a set to those of a whole group or a segment to a whole unit, are zeros. The packed column of step s is
// 16 s. device_matrix.h has the rule.
//
// A unit is what a warp takes at once: 2 steps, or 4 of int4.
//   values  [tiles / 8][unit][8 tiles][part][lane][16 bytes]; each step is an A fragment (simt.h), and
//           128 outputs of some columns are one contiguous copy
//     bf16, fp16: two parts, one for each step: the words of its fragment, pairs of bf16 or fp16 values
//     fp32: four parts, two for each step: the pairs of the first two words, then of the others
//     int8: two words a step, the first for a[0] and a[1], the second for a[2] and a[3]; bytes q + 128 in
//           the order low half of the first, low of the second, high of the first, high of the second
//     int4: one word a step, nibble i + 4 h = half h of a[i], nibble = q - lowest
//   scales  [tile][set][8]{row g, row g + 8}: fp32 or fp16; offsets likewise. A set is the columns of one
//           weight group in one segment. All sets take as many steps, so that kernels know where they end: a
//           group that a slice cuts is a set on either side, filled up; so is the unit at a segment's end,
//           by sets without columns.
//
// Limbs. Tensor cores multiply bf16. A value of a more precise format is the sum of limbs, each the bf16
// that is nearest to what the ones before it leave: two of fp16, three of fp32, which is exact (but for fp32
// below 2^-110). Activations are taken by as many.

#include <cstdint>

#include "common/dtype.h"

namespace bellwether::gpu {

constexpr int kTileRows = 16;
constexpr int kStepCols = 16;

constexpr int StepsPerUnit(WeightFormat format) { return format == WeightFormat::kInt4 ? 4 : 2; }
constexpr int PartsPerUnit(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : IsQuantized(format) ? 1 : 2;
}
constexpr int UnitBytes(WeightFormat format) { return PartsPerUnit(format) * 512; }
constexpr int Limbs(WeightFormat format) {
  return format == WeightFormat::kF32 ? 3 : format == WeightFormat::kF16 ? 2 : 1;
}
constexpr int kLimbsMax = 3;

struct Segment {
  int32_t unit_begin = 0, unit_end = 0;
  // After this segment's sum is pushed on a stack: add the two topmost sums this many times.
  int32_t additions = 0;
};

// Segments [begin, end) add up to one root of the reduction tree.
struct Root {
  int32_t segment_begin = 0, segment_end = 0;
  // How they add up. kStack goes by `additions` and serves for all; the others are faster.
  enum Order : int32_t {
    kStack,
    kFold,      // ((s0 + s1) + s2) ...
    kBalanced,  // a power of two up to 16 of them, halves first
  } order = kStack;
};
constexpr int kSumsMax = 12;  // on the stack at once

// How the sets of a quantised matrix lie in its units.
enum class SetEnds : int32_t {
  kUnits,     // a set is several units: 2, or 4 of int8
  kEach,      // every unit is a set
  kHalves,    // a set is half a unit
  kQuarters,  // a set is a quarter of a unit of int4
};
// `set_steps`: of a set.
constexpr SetEnds SetEndsOf(WeightFormat format, int set_steps) {
  const int unit_steps = StepsPerUnit(format);
  if (set_steps > unit_steps) return SetEnds::kUnits;
  if (set_steps == unit_steps) return SetEnds::kEach;
  return 2 * set_steps == unit_steps ? SetEnds::kHalves : SetEnds::kQuarters;
}

// What is the same for every tile of a matrix.
struct WeightTable {
  const Segment* segments = nullptr;
  const Root* roots = nullptr;
  int32_t segment_count = 0, root_count = 0;
  int32_t units = 0;      // of a tile
  int32_t sets = 0;       // of a tile
  int32_t set_steps = 1;  // of a set: 1, 2, 4 or 8
  // Copies of what short tables say, which a kernel then has at once: the first 32 segments' first units (and
  // one more bound), and the only root's order.
  static constexpr int kInline = 32;
  int32_t unit_bounds[kInline + 1] = {};
  Root::Order order = Root::kStack;
  int32_t unused = 0;
};

constexpr int kBlockTiles = 8;
constexpr int kProductsMax = 3;  // matrices in one launch

struct WeightView {
  WeightTable table;
  const void* values = nullptr;
  const void* scales = nullptr;
  const void* offsets = nullptr;  // null if the format has none
  int32_t rows = 0;
  int32_t tiles = 0;
  bool half_scales = false;
  uint8_t unused[7] = {};
};

// How many units stand before (tile, unit), and where its bytes begin.
template <typename Int>
constexpr Int UnitIndex(Int tile, Int unit, Int units) {
  return (tile / kBlockTiles * units + unit) * kBlockTiles + tile % kBlockTiles;
}
constexpr int64_t UnitOffset(WeightFormat format, int64_t tile, int64_t unit, int64_t units) {
  return UnitIndex(tile, unit, units) * UnitBytes(format);
}

}  // namespace bellwether::gpu
