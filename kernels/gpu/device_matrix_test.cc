#include "kernels/gpu/device_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/slice_tree.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/random_matrix.h"

namespace bellwether::gpu {
namespace {

using kernels::MatrixSpec;

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16,
                                     WeightFormat::kInt8, WeightFormat::kInt4};

std::string Describe(const MatrixSpec& spec) {
  return absl::StrCat(std::string(Name(spec.format)), " ", spec.rows, " x ", spec.cols, ", groups of ",
                      spec.group, spec.has_offset ? ", offsets" : "", spec.half_scales ? ", half scales" : "",
                      ", from column ", spec.first_col, ", slices [", spec.slices.begin, ", ",
                      spec.slices.end, ") of ", spec.slices_total);
}

MatrixSpec WithSlices(MatrixSpec spec, SliceRange slices, int total, std::vector<int64_t> bounds) {
  spec.slices = slices;
  spec.slices_total = total;
  spec.cols = bounds.back();
  spec.slice_bounds = std::move(bounds);
  return spec;
}
std::vector<int64_t> EvenBounds(int count, int64_t each) {
  std::vector<int64_t> bounds;
  for (int i = 0; i <= count; ++i) bounds.push_back(i * each);
  return bounds;
}

// Ways to cut columns: whole and short; odd and empty slices with several roots; a model with 5 slices (5
// heads) and a part of it; 16 even ones; slices of several segments.
std::vector<MatrixSpec> Cuts(const MatrixSpec& base) {
  std::vector<MatrixSpec> specs;
  for (const int64_t cols : {0, 1, 15, 41, 256, 600}) {
    specs.push_back(base);
    specs.back().cols = cols;
  }
  specs.push_back(WithSlices(base, {3, 9}, 11, {0, 20, 20, 60, 61, 100, 133}));
  specs.push_back(WithSlices(base, {0, 5}, 5, EvenBounds(5, 40)));
  specs.push_back(WithSlices(base, {1, 4}, 5, {0, 0, 33, 33}));
  specs.push_back(WithSlices(base, {2, 2}, 16, {0}));
  specs.push_back(WithSlices(base, {0, 16}, 16, EvenBounds(16, 64)));
  specs.push_back(WithSlices(base, {0, 3}, 4, {0, 1024, 2050, 5000}));
  return specs;
}

// Every form of a format with every cut.
std::vector<MatrixSpec> Specs(WeightFormat format) {
  const MatrixSpec base{.rows = 21, .format = format};
  if (!IsQuantized(format)) return Cuts(base);
  std::vector<MatrixSpec> specs;
  for (const int group : {16, 32, 64, 128}) {
    for (const bool has_offset : {false, true}) {
      // A shard may begin inside a group.
      for (const int64_t first_col : {0, 40, 133}) {
        MatrixSpec spec = base;
        spec.group = group;
        spec.has_offset = has_offset;
        spec.half_scales = (group == 32) != has_offset;
        spec.first_col = first_col;
        const std::vector<MatrixSpec> cuts = Cuts(spec);
        specs.insert(specs.end(), cuts.begin(), cuts.end());
      }
    }
  }
  return specs;
}

// What weights.h says, read literally. `row` may be one that does not exist, as long as its tile does.
class Reader {
 public:
  Reader(const DeviceForm& form, const DeviceBytes& bytes, int lowest)
      : form_(form), bytes_(bytes), lowest_(lowest) {}

  // Column `c` of a step: the value, or q.
  float Step(int64_t row, int64_t step, int c) const {
    const WeightFormat format = form_.format;
    const int steps = StepsPerUnit(format), in_unit = static_cast<int>(step % steps);
    const int64_t unit = UnitOffset(format, row / 16, step / steps, form_.units);
    // simt.h: word `word` of lane `lane` of the A fragment, half `half`.
    const int r = static_cast<int>(row % 16);
    const int lane = r % 8 * 4 + c % 8 / 2, word = r / 8 + c / 8 * 2, half = c % 2;
    if (format == WeightFormat::kF32) {
      const int64_t part = in_unit * 2 + word / 2;  // two words' pairs each
      return At<float>(bytes_.values, unit + part * 512 + lane * 16 + word % 2 * 8 + half * 4);
    }
    if (!IsQuantized(format)) {
      const auto bits = At<uint16_t>(bytes_.values, unit + in_unit * 512 + lane * 16 + word * 4 + half * 2);
      return format == WeightFormat::kF16 ? F32FromF16(bits) : F32FromBF16(bits);
    }
    if (format == WeightFormat::kInt8) {
      const auto words = At<uint32_t>(bytes_.values, unit + lane * 16 + in_unit * 8 + word / 2 * 4);
      const int byte = word % 2 + 2 * half;  // low half of the first, low of the second, high, high
      return static_cast<float>(static_cast<int>(words >> 8 * byte & 0xff) - 128);
    }
    const auto words = At<uint32_t>(bytes_.values, unit + lane * 16 + in_unit * 4);
    return static_cast<float>(static_cast<int>(words >> 4 * (word + 4 * half) & 0xf) + lowest_);
  }
  float Factor(const std::vector<char>& from, int64_t row, int64_t set) const {
    const int64_t index = ((row / 16 * form_.sets + set) * 8 + row % 8) * 2 + row % 16 / 8;
    return form_.half_scales ? F32FromF16(At<uint16_t>(from, index * 2)) : At<float>(from, index * 4);
  }
  float Scale(int64_t row, int64_t set) const { return Factor(bytes_.scales, row, set); }
  float Offset(int64_t row, int64_t set) const {
    return form_.has_offset ? Factor(bytes_.offsets, row, set) : 0.0f;
  }

 private:
  template <typename T>
  static T At(const std::vector<char>& bytes, int64_t at) {
    EXPECT_LE(at + static_cast<int64_t>(sizeof(T)), static_cast<int64_t>(bytes.size()));
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  }

  const DeviceForm& form_;
  const DeviceBytes& bytes_;
  const int lowest_;
};

// The columns of a row, from its steps; NaN where none is.
std::vector<float> RowOf(const DeviceForm& form, const Reader& reader, int64_t row) {
  std::vector<float> values(form.cols, NAN);
  size_t set = 0;
  for (size_t s = 0; s < form.steps.size(); ++s) {
    const ColumnStep step = form.steps[s];
    for (int c = 0; c < 16; ++c) {
      const float value = reader.Step(row, static_cast<int64_t>(s), c);
      if (c >= step.count) {
        EXPECT_EQ(value, 0) << "padding of step " << s;
        continue;
      }
      const int64_t col = step.begin + c;
      EXPECT_TRUE(std::isnan(values[col])) << "column " << col << " twice";
      if (!IsQuantized(form.format)) {
        values[col] = value;
        continue;
      }
      while (set < form.set_columns.size() &&
             col >= form.set_columns[set].begin + form.set_columns[set].count)
        ++set;
      const float product = reader.Scale(row, static_cast<int64_t>(set)) * value;
      values[col] = form.has_offset ? product + reader.Offset(row, static_cast<int64_t>(set)) : product;
    }
  }
  return values;
}

void ExpectRoundTrip(const MatrixSpec& spec) {
  SCOPED_TRACE(Describe(spec));
  const RandomMatrix matrix(spec, 7);
  const auto form = DeviceFormOf(spec);
  ASSERT_TRUE(form.ok()) << form.status();
  const DeviceBytes bytes(matrix.packed, *form);
  const Reader reader(*form, bytes, matrix.packed.lowest_q());
  std::vector<float> expected(spec.cols);
  for (int64_t row = 0; row < spec.rows; ++row) {
    matrix.packed.GetRow(row, absl::MakeSpan(expected));
    ASSERT_EQ(RowOf(*form, reader, row), expected) << "row " << row;
  }
  for (int64_t row = spec.rows; row < int64_t{form->tiles} * 16; ++row) {
    for (size_t s = 0; s < form->steps.size(); ++s) {
      for (int c = 0; c < 16; ++c)
        ASSERT_EQ(reader.Step(row, static_cast<int64_t>(s), c), 0) << "row " << row;
    }
    for (int64_t set = 0; set < form->sets; ++set) {
      ASSERT_EQ(reader.Scale(row, set), 0) << "row " << row;
      ASSERT_EQ(reader.Offset(row, set), 0) << "row " << row;
    }
  }
}

TEST(DeviceMatrixTest, HoldsEveryValue) {
  for (const WeightFormat format : kFormats) {
    for (const MatrixSpec& spec : Specs(format)) ExpectRoundTrip(spec);
    for (const int64_t rows : {0, 1, 16, 17, 33, 128, 130})
      ExpectRoundTrip({.rows = rows, .cols = 50, .format = format});
  }
}

// Segments cover the columns in order, in the rule's pieces, each begins with a unit, and none is lost.
void ExpectSegmentsFollowTheRule(const MatrixSpec& spec, const DeviceForm& form) {
  std::vector<std::pair<int64_t, int64_t>> expected;
  const auto cut = [&](int64_t begin, int64_t end, int64_t most) {
    expected.push_back({begin, std::min(begin + most, end)});
    for (int64_t at = begin + most; at < end; at += most) expected.push_back({at, std::min(at + most, end)});
  };
  if (spec.slices_total == 1) cut(0, spec.cols, 256);
  for (int i = 0; spec.slices_total > 1 && i < spec.slices.size(); ++i)
    cut(spec.slice_bounds[i], spec.slice_bounds[i + 1], 1024);
  ASSERT_EQ(form.segments.size(), expected.size());
  const int unit_steps = StepsPerUnit(form.format);
  int32_t unit = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const Segment& segment = form.segments[i];
    EXPECT_EQ(segment.unit_begin, unit);
    unit = segment.unit_end;
    int64_t col = expected[i].first;
    for (int32_t s = segment.unit_begin * unit_steps; s < segment.unit_end * unit_steps; ++s) {
      if (form.steps[s].count == 0) continue;
      EXPECT_EQ(form.steps[s].begin, col);
      col += form.steps[s].count;
    }
    EXPECT_EQ(col, expected[i].second) << "segment " << i;
  }
  EXPECT_EQ(unit, form.units);
}

// Sets take as many steps each: their columns, one after the other, and no others.
void ExpectSetsFollowTheRule(const MatrixSpec& spec, const DeviceForm& form) {
  ASSERT_EQ(form.set_columns.size(), static_cast<size_t>(form.sets));
  if (!IsQuantized(spec.format)) {
    EXPECT_EQ(form.sets, 0);
    return;
  }
  EXPECT_EQ(form.set_steps * kStepCols, spec.group);
  ASSERT_EQ(form.steps.size(), static_cast<size_t>(form.sets) * form.set_steps);
  for (const Segment& segment : form.segments)
    EXPECT_EQ(segment.unit_begin * StepsPerUnit(form.format) % form.set_steps, 0) << "begins within a set";
  for (int32_t set = 0; set < form.sets; ++set) {
    const ColumnStep& columns = form.set_columns[set];
    int32_t col = columns.begin;
    for (int32_t i = 0; i < form.set_steps; ++i) {
      const ColumnStep& step = form.steps[set * form.set_steps + i];
      EXPECT_EQ(step.begin, col) << "set " << set;
      col += step.count;
    }
    EXPECT_EQ(col, columns.begin + columns.count) << "set " << set;
    // Of one group, counted from the row's start.
    if (columns.count == 0) continue;
    EXPECT_EQ((spec.first_col + columns.begin) / spec.group, (spec.first_col + col - 1) / spec.group);
  }
}

// A sum as text shows in which order it was formed.
std::string Sum(const std::string& a, const std::string& b) { return absl::StrCat("(", a, "+", b, ")"); }

// Leaves of a tree, added up as SumTreeArgs says.
std::vector<std::string> AddUp(const std::vector<std::string>& leaves, const std::vector<uint8_t>& additions,
                               const std::vector<uint8_t>& ends) {
  std::vector<std::string> stack, roots;
  for (size_t i = 0; i < leaves.size(); ++i) {
    stack.push_back(leaves[i]);
    for (int n = additions[i]; n > 0; --n) {
      const std::string right = stack.back();
      stack.pop_back();
      stack.back() = Sum(stack.back(), right);
    }
    EXPECT_LE(stack.size(), static_cast<size_t>(kSumsMax));
    if (ends[i] != 0) {
      EXPECT_EQ(stack.size(), 1u);
      roots.push_back(stack.back());
      stack.pop_back();
    }
  }
  EXPECT_TRUE(stack.empty());
  return roots;
}

// Segments [begin, end) with a stack of `depth` sums, as tile_matmul does it.
std::string PartSum(const DeviceForm& form, const Part& part, int depth) {
  std::vector<std::string> stack;
  for (int32_t s = part.segment_begin; s < part.segment_end; ++s) {
    stack.push_back(absl::StrCat(s));
    int additions = form.segments[s].additions;
    // The last segment's further additions are between parts; a fold adds every segment at once.
    if (depth == 1 && s > part.segment_begin) additions = std::max(additions, 1);
    for (; additions > 0 && stack.size() > 1; --additions) {
      const std::string right = stack.back();
      stack.pop_back();
      stack.back() = Sum(stack.back(), right);
    }
    EXPECT_LE(stack.size(), static_cast<size_t>(depth)) << "segment " << s;
  }
  EXPECT_EQ(stack.size(), 1u);
  return stack.front();
}

// In which order the contract adds the segments of each root.
std::vector<std::string> ExpectedSums(const MatrixSpec& spec) {
  int segment = 0;
  const auto columns = [&](int64_t count, int64_t most) {
    std::string sum = absl::StrCat(segment++);
    for (int64_t at = most; at < count; at += most) sum = Sum(sum, absl::StrCat(segment++));
    return sum;
  };
  if (spec.slices_total == 1) return {columns(spec.cols, 256)};
  std::vector<std::string> roots;
  for (const SliceRange& root : SubtreeRoots(spec.slices, spec.slices_total)) {
    std::vector<SliceRange> leaves;
    for (int i = root.begin; i < root.end; ++i) leaves.push_back({i, i + 1});
    int next = 0;
    roots.push_back(SumInTreeOrder<std::string>(
        root, leaves, next,
        [&](int i) {
          const int slice = leaves[i].begin - spec.slices.begin;
          return columns(spec.slice_bounds[slice + 1] - spec.slice_bounds[slice], 1024);
        },
        Sum));
  }
  return roots;
}

void ExpectPartsAddUp(const MatrixSpec& spec, const DeviceForm& form) {
  const std::vector<std::string> expected = ExpectedSums(spec);
  // By the segments' own additions, as stream_matmul's stack does it.
  ASSERT_EQ(form.roots.size(), expected.size());
  int32_t next_segment = 0;
  for (size_t r = 0; r < form.roots.size(); ++r) {
    const Root& root = form.roots[r];
    EXPECT_EQ(root.segment_begin, next_segment);
    next_segment = root.segment_end;
    std::vector<std::string> leaves;
    std::vector<uint8_t> additions, ends(root.segment_end - root.segment_begin, 0);
    for (int32_t s = root.segment_begin; s < root.segment_end; ++s) {
      leaves.push_back(absl::StrCat(s));
      additions.push_back(static_cast<uint8_t>(form.segments[s].additions));
    }
    ends.back() = 1;
    EXPECT_EQ(AddUp(leaves, additions, ends), std::vector<std::string>{expected[r]});
  }
  EXPECT_EQ(next_segment, static_cast<int32_t>(form.segments.size()));
  for (int depth = 1; depth <= 2; ++depth) {
    SCOPED_TRACE(absl::StrCat("a stack of ", depth));
    const DeviceForm::PartSums& sums = form.parts[depth - 1];
    std::vector<std::string> leaves;
    next_segment = 0;
    for (const Part& part : sums.parts) {
      EXPECT_EQ(part.segment_begin, next_segment);
      ASSERT_LT(part.segment_begin, part.segment_end);
      next_segment = part.segment_end;
      leaves.push_back(PartSum(form, part, depth));
    }
    EXPECT_EQ(next_segment, static_cast<int32_t>(form.segments.size()));
    ASSERT_EQ(sums.additions.size(), leaves.size());
    ASSERT_EQ(sums.ends.size(), leaves.size());
    EXPECT_EQ(AddUp(leaves, sums.additions, sums.ends), expected);
  }
  EXPECT_LE(form.parts[1].parts.size(), form.parts[0].parts.size());
}

TEST(DeviceMatrixTest, SegmentsAndSetsFollowTheRule) {
  for (const WeightFormat format : kFormats) {
    for (const MatrixSpec& spec : Specs(format)) {
      SCOPED_TRACE(Describe(spec));
      const auto form = DeviceFormOf(spec);
      ASSERT_TRUE(form.ok()) << form.status();
      ExpectSegmentsFollowTheRule(spec, *form);
      ExpectSetsFollowTheRule(spec, *form);
      ExpectPartsAddUp(spec, *form);
    }
  }
}

// Every rank of every model of up to 16 slices, with slices of one and of several segments.
TEST(DeviceMatrixTest, PartsAddUpInTheOrderOfTheTree) {
  for (int total = 2; total <= 16; ++total) {
    for (int begin = 0; begin < total; ++begin) {
      for (int end = begin + 1; end <= total; ++end) {
        for (const int64_t each : {16, 2500}) {
          MatrixSpec spec = WithSlices({.rows = 16, .format = WeightFormat::kBF16}, {begin, end}, total,
                                       EvenBounds(end - begin, each));
          SCOPED_TRACE(Describe(spec));
          const auto form = DeviceFormOf(spec);
          ASSERT_TRUE(form.ok()) << form.status();
          ExpectPartsAddUp(spec, *form);
        }
      }
    }
  }
}

// The segments that a slice has are the same whoever holds it: else layouts would differ.
TEST(DeviceMatrixTest, SegmentsOfASliceDoNotDependOnTheRank) {
  const std::vector<int64_t> bounds = {0, 20, 20, 1100, 1132, 3500};
  const MatrixSpec base{.rows = 16, .format = WeightFormat::kBF16};
  const DeviceForm whole = *DeviceFormOf(WithSlices(base, {0, 5}, 5, bounds));
  size_t segment = 0;
  for (int slice = 0; slice < 5; ++slice) {
    const DeviceForm one =
        *DeviceFormOf(WithSlices(base, {slice, slice + 1}, 5, {0, bounds[slice + 1] - bounds[slice]}));
    for (const Segment& own : one.segments) {
      const Segment& theirs = whole.segments.at(segment++);
      ASSERT_EQ(own.unit_end - own.unit_begin, theirs.unit_end - theirs.unit_begin);
      for (int32_t s = 0; s < 2 * (own.unit_end - own.unit_begin); ++s) {
        EXPECT_EQ(one.steps[own.unit_begin * 2 + s].begin + bounds[slice],
                  whole.steps[theirs.unit_begin * 2 + s].begin);
        EXPECT_EQ(one.steps[own.unit_begin * 2 + s].count, whole.steps[theirs.unit_begin * 2 + s].count);
      }
    }
  }
  EXPECT_EQ(segment, whole.segments.size());
}

// Activations need no order of their own for the usual shapes, and segments add up the fast way.
TEST(DeviceMatrixTest, UsualShapesAreTheFastOnes) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const int group : {16, 32, 64, 128}) {
      const MatrixSpec whole{.rows = 64, .cols = 4096, .format = format, .group = group};
      const MatrixSpec sliced = WithSlices(whole, {0, 16}, 16, EvenBounds(16, 256));
      for (const MatrixSpec& spec : {whole, sliced}) {
        SCOPED_TRACE(Describe(spec));
        const DeviceForm form = *DeviceFormOf(spec);
        EXPECT_TRUE(form.packed_columns_are_columns);
        EXPECT_EQ(form.sets * group, 4096);
        EXPECT_EQ(form.roots[0].order, spec.slices_total == 1 ? Root::kFold : Root::kBalanced);
      }
    }
  }
  EXPECT_FALSE(
      DeviceFormOf({.rows = 1, .cols = 41, .format = WeightFormat::kBF16})->packed_columns_are_columns);
}

// The down projection of a 7B LLaMA, whose slices are 672 or 704 columns: groups of 32 are never cut, of
// longer ones those at three of four borders, or half of them.
TEST(DeviceMatrixTest, CutGroupsAreFilledUp) {
  std::vector<int64_t> bounds;
  for (int i = 0; i <= 16; ++i) bounds.push_back(344 * i / 16 * 32);
  for (const auto& [format, group, packed] : {std::tuple{WeightFormat::kInt8, 32, 11008},
                                              {WeightFormat::kInt8, 64, 11520},
                                              {WeightFormat::kInt8, 128, 12544},
                                              {WeightFormat::kInt4, 32, 11264},
                                              {WeightFormat::kInt4, 64, 11520},
                                              {WeightFormat::kInt4, 128, 12544}}) {
    const MatrixSpec spec = WithSlices({.rows = 64, .format = format, .group = group}, {0, 16}, 16, bounds);
    SCOPED_TRACE(Describe(spec));
    EXPECT_EQ(DeviceFormOf(spec)->packed_cols(), packed);
  }
}

TEST(DeviceMatrixTest, RefusesASpecThatContradictsItself) {
  MatrixSpec spec{.rows = 16, .cols = 100, .format = WeightFormat::kInt8, .group = 24};
  EXPECT_EQ(DeviceFormOf(spec).status().code(), absl::StatusCode::kInvalidArgument);
  spec = WithSlices({.rows = 16, .format = WeightFormat::kBF16}, {0, 3}, 4, {0, 20, 10, 40});
  EXPECT_EQ(DeviceFormOf(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace bellwether::gpu
