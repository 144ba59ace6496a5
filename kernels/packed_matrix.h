#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/aligned_buffer.h"
#include "common/dtype.h"
#include "common/packed_row.h"
#include "common/slice_tree.h"

// A weight matrix W [rows, cols] in the one form that every CPU kernel reads: y = x W^T, `rows` are outputs,
// `cols` inputs. One contiguous pass over a panel serves one token and many alike.
//
// Panels. Rows are cut into panels of 64; the last one is as wide as its rows rounded up to 16 (rows that do
// not exist hold zeros). Panels follow each other in memory. Inside a panel the columns go from first to last
// and `w`, the panel's width, runs fastest, so 16 neighbouring outputs fill one vector:
//   fp32, fp16   [k][w]
//   bf16         [k / 2][w][2]
//   int8         for each block: (scales [w], offsets [w])? then [k / 4][w][4] bytes, byte = q + 128
//   int4         for each block: (scales [w], offsets [w])? then [k / 8][w][4] bytes; byte j of group g holds
//                the value of column 8 g + j in its low and of column 8 g + 4 + j in its high nibble,
//                nibble = q - lowest_q()
// with value = scale * q + offset.
//
// Segments. A row-parallel matrix is cut along its columns into slices, each a segment that is
// summed on its own; a column-parallel one has a single segment. Columns of a segment are padded with zeros:
// to a multiple of 2 in the float formats, and to a multiple of 8 for each block of a quantised one.
//
// Blocks (quantised only). At most 32 columns that share a segment, an activation group and a weight group.
// Activation groups are 32 columns, counted from the segment's start. Weight groups count from the start of
// the whole row, of which this shard holds the columns from `first_col` on. Scales (and offsets) stand before
// the first block of each weight group and of each segment.

namespace bellwether::kernels {

// Of all that decides on the bytes of packed weights: this form, rounding, how matrices of a layer follow
// each other. What is kept in files is packed anew when it changes.
inline constexpr int kPackedVersion = 1;

inline constexpr int kPanelRows = 64;
// Limits of a matrix; with them no size below overflows.
inline constexpr int64_t kMatrixRowsMax = int64_t{1} << 31;
inline constexpr int64_t kMatrixColsMax = int64_t{1} << 24;
inline constexpr int kMatrixSlicesMax = 256;
// Partial sums that a kernel has on its stack at most: log2(kMatrixSlicesMax) + 1, and the newest.
inline constexpr int kPartialSumsMax = 10;

struct MatrixSpec {
  int64_t rows = 0;
  int64_t cols = 0;
  WeightFormat format = WeightFormat::kF32;
  // Quantised formats only.
  int group = 32;            // columns that share a scale: 16, 32, 64 or 128
  bool has_offset = false;   // int4: false = q in [-8, 7], true = q in [0, 15]
  bool half_scales = false;  // scales and offsets are fp16, else fp32
  int64_t first_col = 0;
  // Row-parallel matrices: the slices held, and their bounds in this shard's columns (slices.size() + 1
  // ascending numbers from 0 to cols; equal neighbours are empty slices). Column-parallel ones keep the
  // default and no bounds.
  SliceRange slices = {0, 1};
  int slices_total = 1;
  std::vector<int64_t> slice_bounds;
};

// Values of part of a row as they come from a checkpoint, before packing.
struct QuantizedSpan {
  const int8_t* q = nullptr;       // [cols]
  const float* scales = nullptr;   // one for each weight group that the columns touch
  const float* offsets = nullptr;  // likewise; null if the spec has none
};

class PackedMatrix {
 public:
  // At most 32 columns of one segment, activation group and weight group.
  struct Block {
    int32_t begin = 0;             // first column
    int32_t count = 0;             // columns
    int32_t padded = 0;            // count rounded up to 8
    int32_t packed_begin = 0;      // sum of `padded` of the blocks before: index into prepared activations
    int32_t activation_group = 0;  // counted over all segments
    bool new_scales = false;       // scales (and offsets) stand before this block
  };
  struct Segment {
    int32_t begin = 0, count = 0;                // columns
    int32_t packed_begin = 0, packed_count = 0;  // columns with padding
    int32_t block_begin = 0, block_end = 0;      // quantised: its blocks
    int32_t scale_sets = 0;                      // quantised: how many of them have new scales
    // After this segment's partial sum is pushed on a stack: add the two topmost sums this many times ...
    int32_t additions = 0;
    // ... and if not negative, pop the sum: it is this root of the reduction tree.
    int32_t root = -1;
  };

  PackedMatrix() = default;

  // Lays out the memory (zeros), in `arena` if there is one. InvalidArgument if the spec contradicts itself.
  static absl::StatusOr<PackedMatrix> Create(MatrixSpec spec, BufferArena* arena = nullptr);
  // Bytes that Create would allocate.
  static absl::StatusOr<int64_t> PackedBytes(const MatrixSpec& spec);

  // Writes row `row`: all `cols` values. Different rows may be written by different threads.
  void SetRow(int64_t row, absl::Span<const float> values);  // float formats; rounds to the format
  void SetRow(int64_t row, const QuantizedSpan& values);     // quantised formats
  // out[cols] = the row's values, dequantised as scale * q + offset.
  void GetRow(int64_t row, absl::Span<float> out) const;
  // The blocks of a quantised row, from first to last, as they were set.
  struct QuantizedBlock {
    int32_t begin = 0, count = 0;  // columns
    const int8_t* q = nullptr;     // [count]
    float scale = 0, offset = 0;   // offset 0 if the spec has none
  };
  void GetQuantizedRow(int64_t row, absl::FunctionRef<void(const QuantizedBlock&)> use) const;

  // From now on its bytes are those at `data`, bytes() of them and aligned to 64, which somebody else owns;
  // what it had is given back. Null: nowhere, until the next call.
  void MoveTo(std::byte* data) { buffer_ = AlignedBuffer::View(data, buffer_.size()); }

  const MatrixSpec& spec() const { return spec_; }
  int64_t rows() const { return spec_.rows; }
  int64_t cols() const { return spec_.cols; }
  WeightFormat format() const { return spec_.format; }
  int lowest_q() const { return spec_.format == WeightFormat::kInt8 ? -128 : spec_.has_offset ? 0 : -8; }
  int64_t bytes() const { return buffer_.size(); }
  std::byte* data() const { return buffer_.data(); }
  int64_t packed_cols() const { return packed_cols_; }
  absl::Span<const Segment> segments() const { return segments_; }
  absl::Span<const Block> blocks() const { return blocks_; }
  int32_t activation_groups() const { return activation_groups_; }
  // Roots of the reduction tree that a product with this matrix yields (1 for column-parallel ones).
  absl::Span<const SliceRange> roots() const { return roots_; }

  int64_t panels() const { return (spec_.rows + kPanelRows - 1) / kPanelRows; }
  int panel_width(int64_t panel) const;  // 16, 32, 48 or 64
  const std::byte* panel_data(int64_t panel) const { return buffer_.data() + panel * full_panel_bytes_; }

  // Bytes of one row of activations prepared for this matrix (KernelTable::prepare_rows), a multiple of 64.
  int64_t prepared_row_bytes() const;
  // The most that can be, whatever the format, of a matrix with so many columns and segments.
  static int64_t PreparedRowBytesMax(int64_t cols, int segments);
  // Whether activations prepared for `other` may be used with this matrix.
  bool SharesPreparation(const PackedMatrix& other) const;

 private:
  MatrixSpec spec_;
  std::vector<Segment> segments_;
  std::vector<Block> blocks_;
  std::vector<SliceRange> roots_;
  int64_t packed_cols_ = 0;
  int32_t activation_groups_ = 0;
  int64_t full_panel_bytes_ = 0;
  AlignedBuffer buffer_;
};

// Rows of activations prepared for quantised matrices: int8 values [packed_cols], padded to a multiple of 64
// bytes, then for each block {float scale; int32 sum of its int8 values}.
struct BlockScale {
  float scale = 0;
  int32_t sum = 0;
};

}  // namespace bellwether::kernels
