#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dtype.h"

namespace bellwether {

// How a row of weights is cut and padded in a packed matrix (kernels/packed_matrix.h has the whole layout).
// Two rooms must agree on it to the byte: kernels, who pack, and model, who count what a shard takes before
// anything is loaded.

inline constexpr int kLaneRows = 16;         // rows of a matrix are padded to this
inline constexpr int kActivationGroup = 32;  // columns that share one int8 activation scale
inline constexpr int kFloatPadding = 2;      // columns of a segment; bf16 products take pairs
inline constexpr int kQuantizedPadding = 8;  // columns of a block; one int4 group

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Columns of a quantised row that share a segment, an activation group and a weight group.
struct ColumnBlock {
  int64_t begin = 0, end = 0;
  bool new_scales = false;  // the first of its weight group in the segment: scales stand before it

  int64_t padded() const { return RoundUp(end - begin, kQuantizedPadding); }
};

// Calls use(ColumnBlock) for the blocks of the segment [begin, end), from first to last. Activation groups
// count from the segment's start; weight groups of `group` columns from the start of the whole row, of which
// column 0 here is column `first_col`.
template <typename Use>
void ForEachColumnBlock(int64_t begin, int64_t end, int64_t first_col, int group, const Use& use) {
  int64_t previous_group = -1;
  for (int64_t col = begin; col < end;) {
    const int64_t weight_group = (first_col + col) / group;
    const int64_t activation_group_end = col + kActivationGroup - (col - begin) % kActivationGroup;
    const int64_t weight_group_end = (weight_group + 1) * group - first_col;
    const ColumnBlock block{col, std::min({end, activation_group_end, weight_group_end}),
                            weight_group != previous_group};
    use(block);
    previous_group = weight_group;
    col = block.end;
  }
}

// Bytes of a row with `packed_cols` columns, padding included, and `scale_sets` scales (with their offsets).
constexpr int64_t PackedRowBytes(WeightFormat format, int64_t packed_cols, int64_t scale_sets,
                                 bool half_scales, bool has_offset) {
  const int64_t scale_bytes = scale_sets * (half_scales ? 2 : 4) * (has_offset ? 2 : 1);
  switch (format) {
    case WeightFormat::kF32:
      return packed_cols * 4;
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return packed_cols * 2;
    case WeightFormat::kInt8:
      return packed_cols + scale_bytes;
    case WeightFormat::kInt4:
      return packed_cols / 2 + scale_bytes;
  }
  return 0;
}

}  // namespace bellwether
