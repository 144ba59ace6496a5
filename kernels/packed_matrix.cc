#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace bellwether::kernels {
namespace {

// What the shape of a matrix implies, before any memory is there.
struct Layout {
  std::vector<PackedMatrix::Segment> segments;
  std::vector<PackedMatrix::Block> blocks;
  std::vector<SliceRange> roots;
  int64_t packed_cols = 0;
  int32_t activation_groups = 0;
  int64_t row_bytes = 0;  // a panel of width w has w times as many
};

std::vector<int64_t> SliceBounds(const MatrixSpec& spec) {
  return spec.slice_bounds.empty() ? std::vector<int64_t>{0, spec.cols} : spec.slice_bounds;
}

absl::Status ValidateSlices(const MatrixSpec& spec) {
  const SliceRange slices = spec.slices;
  if (spec.slices_total < 1 || spec.slices_total > kMatrixSlicesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix has 1 to ", kMatrixSlicesMax, " slices, not ", spec.slices_total));
  }
  if (slices.begin < 0 || slices.end < slices.begin || slices.end > spec.slices_total) {
    return absl::InvalidArgumentError(absl::StrCat("slices [", slices.begin, ", ", slices.end,
                                                   ") are not a range of the ", spec.slices_total,
                                                   " slices"));
  }
  const std::vector<int64_t> bounds = SliceBounds(spec);
  if (bounds.size() != static_cast<size_t>(slices.size()) + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(slices.size(), " slices need ", slices.size() + 1, " bounds, not ", bounds.size()));
  }
  if (bounds.front() != 0 || bounds.back() != spec.cols || !std::is_sorted(bounds.begin(), bounds.end())) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice bounds must ascend from 0 to the ", spec.cols, " columns"));
  }
  return absl::OkStatus();
}

absl::Status Validate(const MatrixSpec& spec) {
  if (spec.rows < 0 || spec.rows > kMatrixRowsMax || spec.cols < 0 || spec.cols > kMatrixColsMax) {
    return absl::InvalidArgumentError(absl::StrCat("a matrix of ", spec.rows, " x ", spec.cols, " exceeds ",
                                                   kMatrixRowsMax, " x ", kMatrixColsMax));
  }
  if (spec.format > WeightFormat::kInt4) {
    return absl::InvalidArgumentError(absl::StrCat("unknown weight format ", static_cast<int>(spec.format)));
  }
  if (IsQuantized(spec.format)) {
    if (spec.group != 16 && spec.group != 32 && spec.group != 64 && spec.group != 128) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight groups have 16, 32, 64 or 128 columns, not ", spec.group));
    }
    if (spec.first_col < 0 || spec.first_col > kMatrixColsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("the first column must be from 0 to ", kMatrixColsMax, ", not ", spec.first_col));
    }
  }
  return ValidateSlices(spec);
}

// Cuts the columns of `segment` where an activation group or a weight group ends.
void AppendBlocks(const MatrixSpec& spec, PackedMatrix::Segment& segment, Layout& layout) {
  segment.block_begin = static_cast<int32_t>(layout.blocks.size());
  const int64_t end = segment.begin + segment.count;
  ForEachColumnBlock(segment.begin, end, spec.first_col, spec.group, [&](const ColumnBlock& columns) {
    const int64_t in_segment = columns.begin - segment.begin;
    PackedMatrix::Block block;
    block.begin = static_cast<int32_t>(columns.begin);
    block.count = static_cast<int32_t>(columns.end - columns.begin);
    block.padded = static_cast<int32_t>(columns.padded());
    block.packed_begin = static_cast<int32_t>(layout.packed_cols);
    block.activation_group = layout.activation_groups + static_cast<int32_t>(in_segment / kActivationGroup);
    block.new_scales = columns.new_scales;
    segment.scale_sets += block.new_scales ? 1 : 0;
    layout.packed_cols += block.padded;
    layout.blocks.push_back(block);
  });
  layout.activation_groups +=
      static_cast<int32_t>(RoundUp(segment.count, kActivationGroup) / kActivationGroup);
  segment.block_end = static_cast<int32_t>(layout.blocks.size());
}

absl::StatusOr<Layout> LayOut(const MatrixSpec& spec) {
  BW_RETURN_IF_ERROR(Validate(spec));
  Layout layout;
  layout.roots = SubtreeRoots(spec.slices, spec.slices_total);
  const std::vector<int64_t> bounds = SliceBounds(spec);
  int64_t scale_sets = 0;
  for (size_t root = 0; root < layout.roots.size(); ++root) {
    const SliceRange node = layout.roots[root];
    const std::vector<int> additions = AdditionsAfterEachSlice(node);
    for (int slice = node.begin; slice < node.end; ++slice) {
      const int local = slice - spec.slices.begin;
      PackedMatrix::Segment segment;
      segment.begin = static_cast<int32_t>(bounds[local]);
      segment.count = static_cast<int32_t>(bounds[local + 1] - bounds[local]);
      segment.packed_begin = static_cast<int32_t>(layout.packed_cols);
      segment.additions = additions[slice - node.begin];
      segment.root = slice + 1 == node.end ? static_cast<int32_t>(root) : -1;
      if (IsQuantized(spec.format)) {
        AppendBlocks(spec, segment, layout);
        scale_sets += segment.scale_sets;
      } else {
        layout.packed_cols += RoundUp(segment.count, kFloatPadding);
      }
      segment.packed_count = static_cast<int32_t>(layout.packed_cols) - segment.packed_begin;
      layout.segments.push_back(segment);
    }
  }
  layout.row_bytes =
      PackedRowBytes(spec.format, layout.packed_cols, scale_sets, spec.half_scales, spec.has_offset);
  return layout;
}

template <typename T>
void Store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}
template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Where one row's values stand inside its panel.
struct RowPlace {
  std::byte* panel = nullptr;
  int64_t width = 0;
  int64_t lane = 0;

  // Float formats.
  std::byte* value(WeightFormat format, int64_t packed_col) const {
    if (format == WeightFormat::kF32) return panel + (packed_col * width + lane) * 4;
    if (format == WeightFormat::kF16) return panel + (packed_col * width + lane) * 2;
    return panel + ((packed_col / 2 * width + lane) * 2 + packed_col % 2) * 2;
  }
};

// Walks the blocks of one row of a quantised matrix: scales, offsets and bytes of each.
class BlockWalk {
 public:
  BlockWalk(const MatrixSpec& spec, RowPlace place)
      : spec_(spec), place_(place), scale_bytes_(spec.half_scales ? 2 : 4), next_(place.panel) {}

  void Enter(const PackedMatrix::Block& block) {
    if (block.new_scales) {
      scale_ = next_ + place_.lane * scale_bytes_;
      next_ += place_.width * scale_bytes_;
      if (spec_.has_offset) {
        offset_ = next_ + place_.lane * scale_bytes_;
        next_ += place_.width * scale_bytes_;
      }
    }
    bytes_ = next_ + place_.lane * 4;
    next_ += place_.width * block.padded / (spec_.format == WeightFormat::kInt8 ? 1 : 2);
  }
  std::byte* scale() const { return scale_; }
  std::byte* offset() const { return offset_; }
  // Column `col` of the block; int4: the byte that shares it, and `high` says which half.
  std::byte* byte(int col) const {
    if (spec_.format == WeightFormat::kInt8) return bytes_ + col / 4 * place_.width * 4 + col % 4;
    return bytes_ + col / 8 * place_.width * 4 + col % 4;
  }
  static bool high(int col) { return col % 8 >= 4; }

 private:
  const MatrixSpec& spec_;
  const RowPlace place_;
  const int64_t scale_bytes_;
  std::byte* next_;
  std::byte* scale_ = nullptr;
  std::byte* offset_ = nullptr;
  std::byte* bytes_ = nullptr;
};

}  // namespace

absl::StatusOr<PackedMatrix> PackedMatrix::Create(MatrixSpec spec, BufferArena* arena) {
  BW_ASSIGN_OR_RETURN(Layout layout, LayOut(spec));
  PackedMatrix matrix;
  const int64_t bytes = RoundUp(spec.rows, kLaneRows) * layout.row_bytes;
  BW_ASSIGN_OR_RETURN(matrix.buffer_,
                      arena == nullptr ? AlignedBuffer::Allocate(bytes) : arena->Allocate(bytes));
  matrix.spec_ = std::move(spec);
  matrix.segments_ = std::move(layout.segments);
  matrix.blocks_ = std::move(layout.blocks);
  matrix.roots_ = std::move(layout.roots);
  matrix.packed_cols_ = layout.packed_cols;
  matrix.activation_groups_ = layout.activation_groups;
  matrix.full_panel_bytes_ = kPanelRows * layout.row_bytes;
  return matrix;
}

absl::StatusOr<int64_t> PackedMatrix::PackedBytes(const MatrixSpec& spec) {
  BW_ASSIGN_OR_RETURN(const Layout layout, LayOut(spec));
  return RoundUp(spec.rows, kLaneRows) * layout.row_bytes;
}

int PackedMatrix::panel_width(int64_t panel) const {
  return static_cast<int>(std::min<int64_t>(kPanelRows, RoundUp(spec_.rows - panel * kPanelRows, kLaneRows)));
}

void PackedMatrix::SetRow(int64_t row, absl::Span<const float> values) {
  BW_CHECK(!IsQuantized(spec_.format) && 0 <= row && row < spec_.rows);
  BW_CHECK_EQ(static_cast<int64_t>(values.size()), spec_.cols);
  const int64_t panel = row / kPanelRows;
  const RowPlace place{buffer_.data() + panel * full_panel_bytes_, panel_width(panel), row % kPanelRows};
  for (const Segment& segment : segments_) {
    for (int64_t i = 0; i < segment.count; ++i) {
      const float value = values[segment.begin + i];
      std::byte* at = place.value(spec_.format, segment.packed_begin + i);
      if (spec_.format == WeightFormat::kF32) Store(at, value);
      if (spec_.format == WeightFormat::kBF16) Store(at, BF16FromF32(value));
      if (spec_.format == WeightFormat::kF16) Store(at, F16FromF32(value));
    }
  }
}

void PackedMatrix::SetRow(int64_t row, const QuantizedSpan& values) {
  BW_CHECK(IsQuantized(spec_.format) && 0 <= row && row < spec_.rows);
  BW_CHECK(spec_.cols == 0 || (values.offsets != nullptr) == spec_.has_offset);
  const int64_t panel = row / kPanelRows;
  BlockWalk walk(spec_, {buffer_.data() + panel * full_panel_bytes_, panel_width(panel), row % kPanelRows});
  const int lowest = lowest_q(), highest = spec_.format == WeightFormat::kInt8 ? 127 : lowest + 15;
  const auto store_scale = [&](std::byte* at, float value) {
    spec_.half_scales ? Store(at, F16FromF32(value)) : Store(at, value);
  };
  bool in_range = true;
  for (const Block& block : blocks_) {
    walk.Enter(block);
    if (block.new_scales) {
      const int64_t group = (spec_.first_col + block.begin) / spec_.group - spec_.first_col / spec_.group;
      store_scale(walk.scale(), values.scales[group]);
      if (spec_.has_offset) store_scale(walk.offset(), values.offsets[group]);
    }
    for (int i = 0; i < block.count; ++i) {
      const int q = values.q[block.begin + i];
      in_range &= lowest <= q && q <= highest;
      const auto bits = static_cast<std::byte>(q - lowest);
      std::byte* at = walk.byte(i);
      if (spec_.format == WeightFormat::kInt8) {
        *at = bits;
      } else if (walk.high(i)) {
        *at = (*at & std::byte{0x0f}) | (bits << 4);
      } else {
        *at = (*at & std::byte{0xf0}) | (bits & std::byte{0x0f});
      }
    }
  }
  BW_CHECK(in_range);
}

void PackedMatrix::GetRow(int64_t row, absl::Span<float> out) const {
  BW_CHECK(0 <= row && row < spec_.rows);
  BW_CHECK_EQ(static_cast<int64_t>(out.size()), spec_.cols);
  const int64_t panel = row / kPanelRows;
  const RowPlace place{buffer_.data() + panel * full_panel_bytes_, panel_width(panel), row % kPanelRows};
  if (!IsQuantized(spec_.format)) {
    for (const Segment& segment : segments_) {
      for (int64_t i = 0; i < segment.count; ++i) {
        const std::byte* at = place.value(spec_.format, segment.packed_begin + i);
        out[segment.begin + i] = spec_.format == WeightFormat::kF32    ? Load<float>(at)
                                 : spec_.format == WeightFormat::kBF16 ? F32FromBF16(Load<uint16_t>(at))
                                                                       : F32FromF16(Load<uint16_t>(at));
      }
    }
    return;
  }
  BlockWalk walk(spec_, place);
  const auto load_scale = [&](const std::byte* at) {
    return spec_.half_scales ? F32FromF16(Load<uint16_t>(at)) : Load<float>(at);
  };
  for (const Block& block : blocks_) {
    walk.Enter(block);
    const float scale = load_scale(walk.scale());
    const float offset = spec_.has_offset ? load_scale(walk.offset()) : 0.0f;
    for (int i = 0; i < block.count; ++i) {
      const int bits = std::to_integer<int>(*walk.byte(i));
      const int stored = spec_.format == WeightFormat::kInt8 ? bits : walk.high(i) ? bits >> 4 : bits & 15;
      const float product = scale * static_cast<float>(stored + lowest_q());
      out[block.begin + i] = spec_.has_offset ? product + offset : product;
    }
  }
}

int64_t PackedMatrix::prepared_row_bytes() const {
  if (!IsQuantized(spec_.format)) return RoundUp(packed_cols_ * 4, 64);
  return RoundUp(RoundUp(packed_cols_, 64) + static_cast<int64_t>(blocks_.size() * sizeof(BlockScale)), 64);
}

// fp32 takes 4 bytes a column, and of each segment at most one column of padding. A quantised segment is cut
// into blocks after every 32 columns and where weight groups of at least 16 end: cols * 3 / 32 blocks and 2
// more for each segment, with 7 bytes of padding and a BlockScale each.
int64_t PackedMatrix::PreparedRowBytesMax(int64_t cols, int segments) {
  const int64_t blocks = (cols * 3 + 31) / 32 + 2 * segments;
  const int64_t quantized =
      cols + blocks * (kQuantizedPadding - 1 + static_cast<int64_t>(sizeof(BlockScale))) + 64;
  return RoundUp(std::max(4 * (cols + segments), quantized), 64);
}

bool PackedMatrix::SharesPreparation(const PackedMatrix& other) const {
  if (IsQuantized(format()) != IsQuantized(other.format()) || cols() != other.cols()) return false;
  // Some levels round activations to bf16 for bf16 weights, and only for them.
  if ((format() == WeightFormat::kBF16) != (other.format() == WeightFormat::kBF16)) return false;
  const auto same_columns = [](const auto& a, const auto& b) {
    return a.begin == b.begin && a.count == b.count;
  };
  return std::equal(segments_.begin(), segments_.end(), other.segments_.begin(), other.segments_.end(),
                    same_columns) &&
         std::equal(blocks_.begin(), blocks_.end(), other.blocks_.begin(), other.blocks_.end(), same_columns);
}

}  // namespace bellwether::kernels
