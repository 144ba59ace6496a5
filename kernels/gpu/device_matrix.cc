#include "kernels/gpu/device_matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/dtype.h"
#include "common/packed_row.h"
#include "common/slice_tree.h"
#include "common/status.h"

namespace bellwether::gpu {
namespace {

using kernels::MatrixSpec;
using kernels::PackedMatrix;

// Lays out columns from first to last.
class FormBuilder {
 public:
  FormBuilder(const MatrixSpec& spec, DeviceForm& form)
      : spec_(spec), form_(form), unit_steps_(StepsPerUnit(form.format)) {
    if (IsQuantized(spec.format)) form.set_steps = spec.group / kStepCols;
  }

  void Build() {
    if (spec_.slices_total == 1) {
      AddColumns(0, spec_.cols, kSegmentColumns);
      AddRoot(0, Root::kFold);
    } else {
      AddSlices();
    }
    form_.units = Units();
    form_.sets = static_cast<int32_t>(form_.set_columns.size());
    form_.packed_columns_are_columns = PackedColumnsAreColumns();
  }

 private:
  int32_t Units() const {
    return static_cast<int32_t>(static_cast<int64_t>(form_.steps.size()) / unit_steps_);
  }

  void AddSlices() {
    int32_t bound = 0;  // index into slice_bounds
    for (const SliceRange& node : SubtreeRoots(spec_.slices, spec_.slices_total)) {
      const auto first = static_cast<int32_t>(form_.segments.size());
      const std::vector<int> additions = AdditionsAfterEachSlice(node);
      bool whole = std::has_single_bit(static_cast<uint32_t>(node.size())) && node.size() <= 16;
      for (const int count : additions) {
        const size_t before = form_.segments.size();
        AddColumns(spec_.slice_bounds[bound], spec_.slice_bounds[bound + 1], kSliceSegmentColumns);
        whole &= form_.segments.size() == before + 1;
        form_.segments.back().additions += count;
        ++bound;
      }
      AddRoot(first, whole ? Root::kBalanced : Root::kStack);
    }
  }

  void AddRoot(int32_t first, Root::Order order) {
    form_.roots.push_back({first, static_cast<int32_t>(form_.segments.size()), order});
  }

  // Segments of at most `most` columns that add up from left to right; one without columns if there are none.
  void AddColumns(int64_t begin, int64_t end, int64_t most) {
    const int64_t start = begin;
    do {
      const int64_t segment_end = std::min(begin + most, end);
      AddSegment(begin, segment_end);
      if (begin != start) form_.segments.back().additions = 1;
      begin = segment_end;
    } while (begin < end);
  }

  void AddSegment(int64_t begin, int64_t end) {
    Segment segment{.unit_begin = Units()};
    IsQuantized(spec_.format) ? AddSets(begin, end) : AddSteps(begin, end);
    segment.unit_end = Units();
    form_.segments.push_back(segment);
  }

  // Weight groups count from the row's start, of which this shard holds the columns from first_col on.
  void AddSets(int64_t begin, int64_t end) {
    for (int64_t col = begin; col < end;) {
      const int64_t group_end = ((spec_.first_col + col) / spec_.group + 1) * spec_.group - spec_.first_col;
      const int64_t set_end = std::min(group_end, end);
      AddSet(col, set_end);
      col = set_end;
    }
    while (form_.steps.size() % unit_steps_ != 0) AddSet(end, end);
  }
  void AddSet(int64_t begin, int64_t end) {
    form_.set_columns.push_back(Columns(begin, end));
    const size_t set_end = form_.steps.size() + form_.set_steps;
    for (int64_t col = begin; form_.steps.size() < set_end; col += kStepCols) AddStep(col, end);
  }
  void AddSteps(int64_t begin, int64_t end) {
    for (int64_t col = begin; col < end || form_.steps.size() % unit_steps_ != 0; col += kStepCols)
      AddStep(col, end);
  }
  // Of the columns from `col` to `end` those that there is room for, or none.
  void AddStep(int64_t col, int64_t end) {
    const int64_t begin = std::min(col, end);
    form_.steps.push_back(Columns(begin, std::min(begin + kStepCols, end)));
  }
  static ColumnStep Columns(int64_t begin, int64_t end) {
    return {static_cast<int32_t>(begin), static_cast<int32_t>(end - begin)};
  }
  bool PackedColumnsAreColumns() const {
    if (static_cast<int64_t>(form_.steps.size()) * kStepCols != spec_.cols) return false;
    for (size_t i = 0; i < form_.steps.size(); ++i) {
      if (form_.steps[i].begin != static_cast<int32_t>(i * kStepCols)) return false;
    }
    return true;
  }

  const MatrixSpec& spec_;
  DeviceForm& form_;
  const int64_t unit_steps_;
};

// Cuts roots into nodes of the tree whose sums need at most `depth` places on the stack.
class PartCutter {
 public:
  PartCutter(const DeviceForm& form, int depth, DeviceForm::PartSums& sums)
      : form_(form), depth_(depth), sums_(sums) {}

  void Cut(const Root& root) {
    CutNode(root.segment_begin, root.segment_end, root.order == Root::kFold);
    sums_.ends.back() = 1;
  }

 private:
  void CutNode(int32_t begin, int32_t end, bool fold) {
    if (fold || Fits(begin, end)) {
      sums_.parts.push_back({begin, end});
      sums_.additions.push_back(0);
      sums_.ends.push_back(0);
      return;
    }
    const int32_t middle = RightChild(begin, end);
    CutNode(begin, middle, false);
    CutNode(middle, end, false);
    ++sums_.additions.back();
  }
  // Where the second operand of the node's last addition begins. Of the last segment's additions only so many
  // are the node's own that one sum is left; the second operand has one fewer.
  int32_t RightChild(int32_t begin, int32_t end) const {
    int own = end - begin - 1;
    for (int32_t s = begin; s < end - 1; ++s) own -= form_.segments[s].additions;
    int missing = own - 1;  // sums that the additions seen so far still need
    int32_t first = end - 1;
    while (missing > 0) missing += form_.segments[--first].additions - 1;
    BW_CHECK(begin < first && first < end);
    return first;
  }
  bool Fits(int32_t begin, int32_t end) const {
    int depth = 0;
    for (int32_t s = begin; s < end; ++s) {
      // The last segment's further additions are with sums to the left of the node.
      depth = std::max(1, depth + 1 - form_.segments[s].additions);
      if (depth > depth_) return false;
    }
    return true;
  }

  const DeviceForm& form_;
  const int depth_;
  DeviceForm::PartSums& sums_;
};

void StoreWord(char* at, uint32_t word) { std::memcpy(at, &word, sizeof(word)); }
uint32_t LoadWord(const char* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

// Where a value of a step lies in its A fragment: word `part` of lane `lane`, half `half`.
struct FragmentPlace {
  int lane, part, half;
  FragmentPlace(int row, int column)
      : lane(row % 8 * 4 + column % 8 / 2), part(row / 8 + column / 8 * 2), half(column % 2) {}
};

// One row of a quantised matrix, as it is packed for CPUs.
struct QuantizedRow {
  std::vector<int8_t> q;
  std::vector<float> scales, offsets;  // one for each set
};

class TilePacker {
 public:
  TilePacker(const PackedMatrix& matrix, const DeviceForm& form, int64_t tile, const TilePlace& place)
      : matrix_(matrix), form_(form), tile_(tile), place_(place) {}

  void PackFloats() {
    std::vector<float> row(form_.cols);
    for (int r = 0; r < kTileRows && tile_ * kTileRows + r < matrix_.rows(); ++r) {
      matrix_.GetRow(tile_ * kTileRows + r, absl::MakeSpan(row));
      ForEachValue(r, [&](char* unit, int step, const FragmentPlace& place, int32_t col) {
        if (form_.format == WeightFormat::kF32) {
          const int part = step * 2 + place.part / 2, word = place.part % 2 * 2 + place.half;
          std::memcpy(unit + part * 512 + place.lane * 16 + word * 4, &row[col], 4);
          return;
        }
        const uint16_t bits =
            form_.format == WeightFormat::kF16 ? F16FromF32(row[col]) : BF16FromF32(row[col]);
        std::memcpy(unit + step * 512 + (place.lane * 4 + place.part) * 4 + place.half * 2, &bits, 2);
      });
    }
  }

  void PackQuantized() {
    std::vector<int8_t> q(form_.cols);
    std::vector<float> scales(form_.sets), offsets(form_.has_offset ? form_.sets : 0);
    const bool int4 = form_.format == WeightFormat::kInt4;
    const int lowest = matrix_.lowest_q();
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t row = tile_ * kTileRows + r;
      // Rows that do not exist are q = 0 with scale 0.
      std::fill(q.begin(), q.end(), 0);
      std::fill(scales.begin(), scales.end(), 0.0f);
      std::fill(offsets.begin(), offsets.end(), 0.0f);
      if (row < matrix_.rows()) GetRow(row, q, scales, offsets);
      // A step's padding must be q = 0 as well, and what is not written yet is 0 - lowest below that.
      for (size_t s = 0; s < form_.steps.size(); ++s) {
        char* unit = Unit(static_cast<int64_t>(s));
        const int step = static_cast<int>(s) % StepsPerUnit(form_.format);
        for (int c = 0; c < kStepCols; ++c) {
          const int value = c < form_.steps[s].count ? q[form_.steps[s].begin + c] : 0;
          const FragmentPlace place(r, c);
          const auto bits = static_cast<uint32_t>(value - lowest);
          char* at = unit + place.lane * 16 + (int4 ? step * 4 : step * 8 + place.part / 2 * 4);
          const int shift = int4 ? 4 * (place.part + 4 * place.half) : 8 * (place.part % 2 + 2 * place.half);
          StoreWord(at, LoadWord(at) | bits << shift);
        }
      }
      StoreScales(r, scales, place_.scales);
      if (form_.has_offset) StoreScales(r, offsets, place_.offsets);
    }
  }

 private:
  char* Unit(int64_t step) {
    return place_.values +
           UnitOffset(form_.format, place_.tile, step / StepsPerUnit(form_.format), form_.units);
  }
  template <typename Use>
  void ForEachValue(int row, const Use& use) {
    for (size_t s = 0; s < form_.steps.size(); ++s) {
      char* unit = Unit(static_cast<int64_t>(s));
      const int step = static_cast<int>(s) % StepsPerUnit(form_.format);
      for (int c = 0; c < form_.steps[s].count; ++c)
        use(unit, step, FragmentPlace(row, c), form_.steps[s].begin + c);
    }
  }
  // The row's groups in the order of the checkpoint become sets: a group that a slice cuts has one on each
  // side.
  void GetRow(int64_t row, std::vector<int8_t>& q, std::vector<float>& scales, std::vector<float>& offsets) {
    matrix_.GetQuantizedRow(row, [&](const PackedMatrix::QuantizedBlock& block) {
      std::copy_n(block.q, block.count, q.begin() + block.begin);
      const auto set =
          std::upper_bound(form_.set_columns.begin(), form_.set_columns.end(), block.begin,
                           [](int32_t col, const ColumnStep& columns) { return col < columns.begin; }) -
          form_.set_columns.begin() - 1;
      scales[set] = block.scale;
      if (form_.has_offset) offsets[set] = block.offset;
    });
  }
  void StoreScales(int row, const std::vector<float>& values, char* to) {
    for (int64_t set = 0; set < form_.sets; ++set) {
      const int64_t index = ((place_.tile * form_.sets + set) * 8 + row % 8) * 2 + row / 8;
      if (form_.half_scales) {
        const uint16_t bits = F16FromF32(values[set]);
        std::memcpy(to + index * 2, &bits, 2);
      } else {
        std::memcpy(to + index * 4, &values[set], 4);
      }
    }
  }

  const PackedMatrix& matrix_;
  const DeviceForm& form_;
  const int64_t tile_;
  const TilePlace& place_;
};

}  // namespace

int64_t DeviceForm::value_bytes() const {
  return RoundUp(tiles, kBlockTiles) / kBlockTiles * block_value_bytes();
}

int64_t DeviceForm::scale_bytes() const {
  // Kernels fetch two sets ahead.
  return sets == 0 ? 0 : tiles * tile_scale_bytes() + int64_t{2} * kTileRows * (half_scales ? 2 : 4);
}

absl::StatusOr<DeviceForm> DeviceFormOf(const MatrixSpec& spec) {
  BW_RETURN_IF_ERROR(PackedMatrix::PackedBytes(spec).status());  // the spec agrees with itself
  DeviceForm form{.format = spec.format,
                  .has_offset = IsQuantized(spec.format) && spec.has_offset,
                  .half_scales = IsQuantized(spec.format) && spec.half_scales,
                  .rows = spec.rows,
                  .cols = spec.cols};
  form.tiles = static_cast<int32_t>((spec.rows + kTileRows - 1) / kTileRows);
  FormBuilder(spec, form).Build();
  for (int depth = 1; depth <= 2; ++depth) {
    PartCutter cutter(form, depth, form.parts[depth - 1]);
    for (const Root& root : form.roots) cutter.Cut(root);
    if (form.parts[depth - 1].parts.size() > kLeavesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("a matrix of ", form.parts[depth - 1].parts.size(), " parts, more than ", kLeavesMax));
    }
  }
  return form;
}

bool SamePreparation(const DeviceForm& a, const DeviceForm& b) {
  const auto same = [](const ColumnStep& x, const ColumnStep& y) {
    return x.begin == y.begin && x.count == y.count;
  };
  return a.cols == b.cols &&
         std::equal(a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(), same) &&
         std::equal(a.set_columns.begin(), a.set_columns.end(), b.set_columns.begin(), b.set_columns.end(),
                    same);
}

void PackTile(const PackedMatrix& matrix, const DeviceForm& form, int64_t tile, const TilePlace& place) {
  TilePacker packer(matrix, form, tile, place);
  IsQuantized(form.format) ? packer.PackQuantized() : packer.PackFloats();
}

}  // namespace bellwether::gpu
