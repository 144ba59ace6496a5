#include "kernels/packed_matrix.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether::kernels {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16,
                                     WeightFormat::kInt8, WeightFormat::kInt4};

// A cheap hash: different places hold different values.
uint32_t Mix(uint32_t a, uint32_t b) {
  uint32_t x = a * 0x9e3779b1u ^ (b + 0x7f4a7c15u) * 0x85ebca6bu;
  x ^= x >> 15;
  x *= 0x2c1b3c6du;
  return x ^ x >> 13;
}

// Quantised values of every row, as they come from a checkpoint.
struct QuantizedRows {
  explicit QuantizedRows(const MatrixSpec& spec) : spec(spec) {
    groups =
        spec.cols == 0 ? 0 : (spec.first_col + spec.cols - 1) / spec.group - spec.first_col / spec.group + 1;
    const int lowest = spec.format == WeightFormat::kInt8 ? -128 : spec.has_offset ? 0 : -8;
    const int count = spec.format == WeightFormat::kInt8 ? 256 : 16;
    for (int64_t row = 0; row < spec.rows; ++row) {
      for (int64_t col = 0; col < spec.cols; ++col)
        q.push_back(lowest + static_cast<int>(Mix(row, col) % count));
      for (int64_t g = 0; g < groups; ++g) {
        // Few mantissa bits: exact in fp16.
        scales.push_back((1 + Mix(row, g + 1000) % 100) * 0x1p-7f);
        offsets.push_back((static_cast<int>(Mix(row, g + 2000) % 200) - 100) * 0x1p-4f);
      }
    }
  }
  QuantizedSpan row(int64_t row) const {
    return {q.data() + row * spec.cols, scales.data() + row * groups,
            spec.has_offset ? offsets.data() + row * groups : nullptr};
  }
  float value(int64_t row, int64_t col) const {
    const int64_t group = row * groups + (spec.first_col + col) / spec.group - spec.first_col / spec.group;
    const float product = scales[group] * q[row * spec.cols + col];
    return spec.has_offset ? product + offsets[group] : product;
  }
  MatrixSpec spec;
  int64_t groups = 0;
  std::vector<int8_t> q;
  std::vector<float> scales, offsets;
};

// Exact in bf16 and fp16.
float FloatValue(int64_t row, int64_t col) { return (static_cast<int>(Mix(row, col) % 256) - 128) * 0x1p-5f; }

void ExpectRoundTrip(const MatrixSpec& spec) {
  SCOPED_TRACE(std::string(Name(spec.format)) + " " + std::to_string(spec.rows) + " x " +
               std::to_string(spec.cols) + " group " + std::to_string(spec.group) + " first " +
               std::to_string(spec.first_col) + " slices " + std::to_string(spec.slices.size()));
  absl::StatusOr<PackedMatrix> matrix = PackedMatrix::Create(spec);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->bytes(), *PackedMatrix::PackedBytes(spec));
  EXPECT_EQ(matrix->prepared_row_bytes() % 64, 0);
  EXPECT_LE(matrix->prepared_row_bytes(), PackedMatrix::PreparedRowBytesMax(spec.cols, spec.slices.size()));
  const QuantizedRows rows(spec);
  std::vector<float> values(spec.cols);
  // Backwards: a row must not disturb those after it.
  for (int64_t row = spec.rows - 1; row >= 0; --row) {
    if (IsQuantized(spec.format)) {
      matrix->SetRow(row, rows.row(row));
    } else {
      for (int64_t col = 0; col < spec.cols; ++col) values[col] = FloatValue(row, col);
      matrix->SetRow(row, values);
    }
  }
  for (int64_t row = 0; row < spec.rows; ++row) {
    matrix->GetRow(row, absl::MakeSpan(values));
    for (int64_t col = 0; col < spec.cols; ++col) {
      const float expected = IsQuantized(spec.format) ? rows.value(row, col) : FloatValue(row, col);
      ASSERT_EQ(values[col], expected) << "row " << row << " column " << col;
    }
  }
}

// Heads of 20 columns (so weight groups are cut), odd and empty slices.
MatrixSpec Sliced(WeightFormat format) {
  MatrixSpec spec;
  spec.rows = 70;
  spec.format = format;
  spec.slices = {3, 9};
  spec.slices_total = 11;
  spec.slice_bounds = {0, 20, 20, 60, 61, 100, 133};
  spec.cols = 133;
  return spec;
}

TEST(PackedMatrixTest, RoundTripsFloatsWithEveryPanelTail) {
  for (WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16}) {
    for (int64_t rows = 0; rows <= 130; ++rows) ExpectRoundTrip({.rows = rows, .cols = 7, .format = format});
    for (int64_t cols = 0; cols < 70; ++cols) ExpectRoundTrip({.rows = 3, .cols = cols, .format = format});
    ExpectRoundTrip(Sliced(format));
  }
}

TEST(PackedMatrixTest, RoundTripsQuantizedFormats) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (int group : {16, 32, 64, 128}) {
      for (bool has_offset : {false, true}) {
        for (bool half_scales : {false, true}) {
          for (int64_t first_col : {0, 5, 16, 40, 100, 128, 200}) {
            MatrixSpec spec = Sliced(format);
            spec.group = group;
            spec.has_offset = has_offset;
            spec.half_scales = half_scales;
            spec.first_col = first_col;
            ExpectRoundTrip(spec);
            spec.slices = {0, 1};
            spec.slices_total = 1;
            spec.slice_bounds.clear();
            ExpectRoundTrip(spec);
          }
        }
      }
    }
    for (int64_t rows = 0; rows <= 130; ++rows) ExpectRoundTrip({.rows = rows, .cols = 41, .format = format});
    for (int64_t cols = 0; cols < 140; ++cols) ExpectRoundTrip({.rows = 3, .cols = cols, .format = format});
  }
}

TEST(PackedMatrixTest, RoundsToTheFormat) {
  const float value = 1.0f + 0x1p-9f;  // a quarter of bf16's last place
  for (auto [format, expected] :
       {std::pair{WeightFormat::kF32, value}, {WeightFormat::kBF16, 1.0f}, {WeightFormat::kF16, value}}) {
    PackedMatrix matrix = *PackedMatrix::Create({.rows = 1, .cols = 1, .format = format});
    matrix.SetRow(0, absl::MakeConstSpan(&value, 1));
    float out = 0;
    matrix.GetRow(0, absl::MakeSpan(&out, 1));
    EXPECT_EQ(out, expected);
  }
}

// The header's formulas, read literally, on a panel 48 wide that follows a full one.
TEST(PackedMatrixTest, LaysOutFloatPanelsAsDocumented) {
  const int64_t row = 64 + 33, lane = 33, width = 48;
  for (WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16}) {
    PackedMatrix matrix = *PackedMatrix::Create({.rows = 64 + 40, .cols = 5, .format = format});
    ASSERT_EQ(matrix.panels(), 2);
    ASSERT_EQ(matrix.panel_width(0), 64);
    ASSERT_EQ(matrix.panel_width(1), width);
    const std::vector<float> values = {1, 2, 3, 4, 5};
    matrix.SetRow(row, values);
    const std::byte* panel = matrix.panel_data(1);
    for (int64_t k = 0; k < 6; ++k) {
      const float expected = k < 5 ? values[k] : 0;
      if (format == WeightFormat::kF32) {
        EXPECT_EQ(reinterpret_cast<const float*>(panel)[k * width + lane], expected);
      } else if (format == WeightFormat::kF16) {
        EXPECT_EQ(F32FromF16(reinterpret_cast<const uint16_t*>(panel)[k * width + lane]), expected);
      } else {
        EXPECT_EQ(F32FromBF16(reinterpret_cast<const uint16_t*>(panel)[(k / 2 * width + lane) * 2 + k % 2]),
                  expected);
      }
    }
  }
}

TEST(PackedMatrixTest, LaysOutQuantizedPanelsAsDocumented) {
  // Columns 40 ... 79 of the whole row: blocks of 24 (to the group's end at 64), 8 and 8 columns.
  MatrixSpec spec{
      .rows = 64 + 20, .cols = 40, .group = 64, .has_offset = true, .half_scales = true, .first_col = 40};
  const int64_t row = 64 + 18, lane = 18, width = 32;
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    spec.format = format;
    PackedMatrix matrix = *PackedMatrix::Create(spec);
    const QuantizedRows rows(spec);
    matrix.SetRow(row, rows.row(row));
    const QuantizedSpan expected = rows.row(row);
    ASSERT_EQ(matrix.panels(), 2);
    ASSERT_EQ(matrix.panel_width(0), 64);
    ASSERT_EQ(matrix.panel_width(1), width);
    const std::byte* at = matrix.panel_data(1);
    int64_t group = -1;
    ASSERT_EQ(matrix.blocks().size(), 3u);
    for (const PackedMatrix::Block& block : matrix.blocks()) {
      EXPECT_EQ(block.count, block.begin == 0 ? 24 : 8);
      EXPECT_EQ(block.activation_group, block.begin < 32 ? 0 : 1);
      EXPECT_EQ(block.new_scales, block.begin != 32);
      if (block.new_scales) {
        ++group;
        EXPECT_EQ(F32FromF16(reinterpret_cast<const uint16_t*>(at)[lane]), expected.scales[group]);
        at += 2 * width;
        EXPECT_EQ(F32FromF16(reinterpret_cast<const uint16_t*>(at)[lane]), expected.offsets[group]);
        at += 2 * width;
      }
      for (int col = 0; col < block.count; ++col) {
        const int q = expected.q[block.begin + col];
        if (format == WeightFormat::kInt8) {
          EXPECT_EQ(static_cast<int>(at[(col / 4 * width + lane) * 4 + col % 4]), q + 128);
        } else {
          const int both = static_cast<int>(at[(col / 8 * width + lane) * 4 + col % 4]);
          EXPECT_EQ(col % 8 < 4 ? both & 15 : both >> 4, q - matrix.lowest_q());
        }
      }
      at += block.padded * width / (format == WeightFormat::kInt8 ? 1 : 2);
    }
    EXPECT_EQ(at, matrix.panel_data(0) + matrix.bytes());
  }
}

TEST(PackedMatrixTest, SegmentsFollowTheSummationTree) {
  PackedMatrix matrix = *PackedMatrix::Create(Sliced(WeightFormat::kInt8));
  const std::vector<SliceRange> roots = SubtreeRoots({3, 9}, 11);
  ASSERT_TRUE(std::equal(roots.begin(), roots.end(), matrix.roots().begin(), matrix.roots().end()));
  ASSERT_EQ(matrix.segments().size(), 6u);
  int depth = 0, roots_seen = 0;
  for (const PackedMatrix::Segment& segment : matrix.segments()) {
    depth += 1 - segment.additions;
    ASSERT_GE(depth, 1);
    if (segment.root >= 0) {
      EXPECT_EQ(segment.root, roots_seen++);
      EXPECT_EQ(depth--, 1);
    }
  }
  EXPECT_EQ(roots_seen, static_cast<int>(roots.size()));
  EXPECT_EQ(matrix.segments()[1].count, 0);
  EXPECT_EQ(matrix.segments()[1].packed_count, 0);
}

TEST(PackedMatrixTest, BlocksCoverEachSegmentOnce) {
  for (int64_t first_col : {0, 7, 64, 100}) {
    MatrixSpec spec = Sliced(WeightFormat::kInt4);
    spec.first_col = first_col;
    spec.group = 64;
    PackedMatrix matrix = *PackedMatrix::Create(spec);
    int32_t packed = 0, group = 0;
    for (const PackedMatrix::Segment& segment : matrix.segments()) {
      int32_t col = segment.begin;
      EXPECT_EQ(segment.packed_begin, packed);
      for (int b = segment.block_begin; b < segment.block_end; ++b) {
        const PackedMatrix::Block& block = matrix.blocks()[b];
        EXPECT_EQ(block.begin, col);
        EXPECT_EQ(block.packed_begin, packed);
        EXPECT_EQ(block.padded % 8, 0);
        EXPECT_TRUE(block.count >= 1 && block.count <= 32 && block.padded - block.count < 8);
        EXPECT_EQ(block.activation_group, group + (col - segment.begin) / kActivationGroup);
        EXPECT_EQ((block.begin - segment.begin) / 32, (block.begin + block.count - 1 - segment.begin) / 32);
        EXPECT_EQ((first_col + block.begin) / 64, (first_col + block.begin + block.count - 1) / 64);
        col += block.count;
        packed += block.padded;
      }
      EXPECT_EQ(col, segment.begin + segment.count);
      EXPECT_EQ(packed, segment.packed_begin + segment.packed_count);
      group += (segment.count + kActivationGroup - 1) / kActivationGroup;
    }
    EXPECT_EQ(group, matrix.activation_groups());
    EXPECT_EQ(packed, matrix.packed_cols());
  }
}

TEST(PackedMatrixTest, PreparationIsSharedOnlyByTheSameColumns) {
  const auto make = [](MatrixSpec spec) { return *PackedMatrix::Create(std::move(spec)); };
  const PackedMatrix f32 = make({.rows = 3, .cols = 64});
  const PackedMatrix f16 = make({.rows = 90, .cols = 64, .format = WeightFormat::kF16});
  const PackedMatrix bf16 = make({.rows = 3, .cols = 64, .format = WeightFormat::kBF16});
  const PackedMatrix int8 = make({.rows = 3, .cols = 64, .format = WeightFormat::kInt8});
  const PackedMatrix int4 = make({.rows = 3, .cols = 64, .format = WeightFormat::kInt4, .has_offset = true});
  const PackedMatrix wide_groups = make({.rows = 3, .cols = 64, .format = WeightFormat::kInt4, .group = 64});
  const PackedMatrix small_groups = make({.rows = 3, .cols = 64, .format = WeightFormat::kInt8, .group = 16});
  EXPECT_TRUE(f32.SharesPreparation(f16));
  EXPECT_FALSE(f32.SharesPreparation(bf16));
  EXPECT_FALSE(f32.SharesPreparation(int8));
  EXPECT_TRUE(int8.SharesPreparation(int4));
  EXPECT_TRUE(int8.SharesPreparation(wide_groups));
  EXPECT_FALSE(int8.SharesPreparation(small_groups));
  EXPECT_FALSE(f32.SharesPreparation(make({.rows = 3, .cols = 65})));
  EXPECT_FALSE(f32.SharesPreparation(
      make({.rows = 3, .cols = 64, .slices = {0, 2}, .slices_total = 2, .slice_bounds = {0, 32, 64}})));
  for (const PackedMatrix* a : {&f32, &bf16, &int8, &small_groups}) EXPECT_TRUE(a->SharesPreparation(*a));
}

TEST(PackedMatrixTest, RefusesContradictorySpecs) {
  const MatrixSpec good = Sliced(WeightFormat::kInt8);
  ASSERT_TRUE(PackedMatrix::PackedBytes(good).ok());
  const auto refused = [&](auto change) {
    MatrixSpec spec = good;
    change(spec);
    return absl::IsInvalidArgument(PackedMatrix::PackedBytes(spec).status()) &&
           absl::IsInvalidArgument(PackedMatrix::Create(spec).status());
  };
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.rows = -1; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.rows = INT64_MAX; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.cols = INT64_MAX, s.slice_bounds.back() = INT64_MAX; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.cols = -1; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.cols = 134; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.group = 0; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.group = 48; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.first_col = -32; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.first_col = INT64_MAX; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.format = static_cast<WeightFormat>(9); }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slices = {9, 3}; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slices = {-1, 5}; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slices_total = 8; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slices_total = INT32_MAX; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slice_bounds.pop_back(); }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slice_bounds.clear(); }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { s.slice_bounds[0] = 1; }));
  EXPECT_TRUE(refused([](MatrixSpec& s) { std::swap(s.slice_bounds[3], s.slice_bounds[4]); }));
}

TEST(PackedMatrixTest, LargestMatrixDoesNotOverflow) {
  const absl::StatusOr<int64_t> bytes =
      PackedMatrix::PackedBytes({.rows = kMatrixRowsMax, .cols = kMatrixColsMax});
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(*bytes, kMatrixRowsMax * kMatrixColsMax * 4);
}

TEST(PackedMatrixTest, ARankMayHoldNoSlices) {
  for (WeightFormat format : kFormats) {
    const MatrixSpec spec{
        .rows = 20, .cols = 0, .format = format, .slices = {2, 2}, .slices_total = 4, .slice_bounds = {0}};
    const absl::StatusOr<PackedMatrix> matrix = PackedMatrix::Create(spec);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    EXPECT_TRUE(matrix->roots().empty() && matrix->segments().empty());
    EXPECT_EQ(matrix->bytes(), 0);
  }
}

}  // namespace
}  // namespace bellwether::kernels
