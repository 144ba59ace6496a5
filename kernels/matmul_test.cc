#include <algorithm>
#include <limits>
#include <string>

#include "common/aligned_buffer.h"
#include "common/slice_tree.h"
#include "kernels/kernel_level_test.h"

namespace bellwether::kernels {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16,
                                     WeightFormat::kInt8, WeightFormat::kInt4};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Values of a weight matrix and its packed form. `first_col` of the spec cuts the values, so that a rank's
// shard can be packed from the values of the whole.
struct Weights {
  PackedMatrix packed;
  std::vector<std::vector<double>> dense;      // [row][col], what the packed form stands for
  std::vector<std::vector<double>> magnitude;  // |scale q| + |offset|, or |value|
};

// How weights are drawn.
enum class Draw {
  kRandom,    // any values
  kIntegers,  // small integers, so that sums are exact in any order
  kExtremes,  // the largest q of both signs; integers in the float formats
};

// Column `col` here is the one of the whole matrix, so a shard draws what the whole draws.
uint32_t Hash(uint32_t seed, int64_t row, int64_t col) {
  uint32_t x = seed * 0x9e3779b1u + static_cast<uint32_t>(row) * 0x85ebca6bu +
               static_cast<uint32_t>(col) * 0xc2b2ae35u;
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

int DrawQ(const PackedMatrix& matrix, Draw draw, uint32_t hash) {
  const int count = matrix.format() == WeightFormat::kInt8 ? 256 : 16;
  const int lowest = matrix.lowest_q();
  if (draw == Draw::kExtremes) return hash % 4 != 0 ? lowest + count - 1 : lowest;
  return lowest + static_cast<int>(hash % count);
}

void FillQuantizedRow(Weights& weights, int64_t row, Draw draw, uint32_t seed) {
  const MatrixSpec& spec = weights.packed.spec();
  const int64_t first_group = spec.first_col / spec.group;
  std::vector<int8_t> q(spec.cols);
  std::vector<float> scales, offsets;
  for (int64_t g = first_group; g * spec.group < spec.first_col + spec.cols; ++g) {
    const uint32_t hash = Hash(seed + 1, row, g);
    const bool exact = draw != Draw::kRandom;
    float scale =
        exact ? static_cast<float>(1 << hash % 3) : 0.001f + static_cast<float>(hash % 1000) * 1e-5f;
    float offset = exact ? static_cast<float>(static_cast<int>(hash / 8 % 7) - 3)
                         : static_cast<float>(static_cast<int>(hash % 2001) - 1000) * 1e-4f;
    if (spec.half_scales) scale = F32FromF16(F16FromF32(scale)), offset = F32FromF16(F16FromF32(offset));
    scales.push_back(scale);
    offsets.push_back(offset);
  }
  for (int64_t col = 0; col < spec.cols; ++col) {
    q[col] = static_cast<int8_t>(DrawQ(weights.packed, draw, Hash(seed, row, spec.first_col + col)));
    const int64_t group = (spec.first_col + col) / spec.group - first_group;
    const double product = double{scales[group]} * q[col];
    const double offset = spec.has_offset ? offsets[group] : 0;
    weights.dense[row].push_back(product + offset);
    weights.magnitude[row].push_back(std::abs(product) + std::abs(offset));
  }
  weights.packed.SetRow(row, {q.data(), scales.data(), spec.has_offset ? offsets.data() : nullptr});
}

void FillFloatRow(Weights& weights, int64_t row, Draw draw, uint32_t seed) {
  const MatrixSpec& spec = weights.packed.spec();
  std::vector<float> values(spec.cols);
  for (int64_t col = 0; col < spec.cols; ++col) {
    const uint32_t hash = Hash(seed, row, spec.first_col + col);
    values[col] = draw == Draw::kRandom ? static_cast<float>(static_cast<int32_t>(hash)) * 0x1p-31f
                                        : static_cast<float>(static_cast<int>(hash % 33) - 16);
  }
  weights.packed.SetRow(row, values);
  weights.packed.GetRow(row, absl::MakeSpan(values));  // rounded to the format
  for (float value : values) {
    weights.dense[row].push_back(value);
    weights.magnitude[row].push_back(std::abs(value));
  }
}

Weights MakeWeights(const MatrixSpec& spec, Draw draw = Draw::kRandom, uint32_t seed = 1) {
  Weights weights{*PackedMatrix::Create(spec), std::vector<std::vector<double>>(spec.rows),
                  std::vector<std::vector<double>>(spec.rows)};
  for (int64_t row = 0; row < spec.rows; ++row) {
    IsQuantized(spec.format) ? FillQuantizedRow(weights, row, draw, seed)
                             : FillFloatRow(weights, row, draw, seed);
  }
  return weights;
}

// Rows of prepared activations, each on its 64-byte line as the contract asks.
struct Prepared {
  Prepared(const KernelTable& kernels, const PackedMatrix& matrix, ConstRows x)
      : row_bytes(matrix.prepared_row_bytes()),
        bytes(*AlignedBuffer::Allocate(std::max<int64_t>(1, x.rows * row_bytes))) {
    kernels.prepare_rows(matrix, x, 0, x.rows, bytes.data());
  }
  int64_t row_bytes;
  AlignedBuffer bytes;
};

// y as [root][row][output].
std::vector<float> Multiply(const KernelTable& kernels, const PackedMatrix& matrix,
                            const std::vector<float>& x, int64_t rows) {
  const Prepared prepared(kernels, matrix, {x.data(), rows, matrix.cols()});
  std::vector<float> y(matrix.roots().size() * rows * matrix.rows(), kNaN);
  kernels.matmul({.weights = &matrix,
                  .prepared = prepared.bytes.data(),
                  .rows = rows,
                  .panel_end = matrix.panels(),
                  .y = y.data(),
                  .stride = matrix.rows(),
                  .root_stride = rows * matrix.rows()});
  return y;
}

// The whole matrix, its columns cut at `bounds`.
MatrixSpec WithSlices(MatrixSpec spec, std::vector<int64_t> bounds) {
  spec.slices_total = static_cast<int>(bounds.size()) - 1;
  spec.slices = {0, spec.slices_total};
  spec.cols = bounds.back();
  spec.slice_bounds = std::move(bounds);
  return spec;
}

// Formats with everything that their spec can say.
std::vector<MatrixSpec> Variants(MatrixSpec base) {
  std::vector<MatrixSpec> variants;
  for (WeightFormat format : kFormats) {
    base.format = format;
    if (!IsQuantized(format)) {
      variants.push_back(base);
      continue;
    }
    for (int group : {16, 32, 64, 128}) {
      for (int flags = 0; flags < 4; ++flags) {
        MatrixSpec spec = base;
        spec.group = group;
        spec.has_offset = flags & 1;
        spec.half_scales = flags & 2;
        variants.push_back(spec);
      }
    }
  }
  return variants;
}

std::string Describe(const MatrixSpec& spec) {
  return std::string(Name(spec.format)) + " " + std::to_string(spec.rows) + " x " +
         std::to_string(spec.cols) + " slices " + std::to_string(spec.slices.size()) + " group " +
         std::to_string(spec.group) + (spec.has_offset ? " offset" : "") + (spec.half_scales ? " half" : "");
}

// Integers whose largest in each activation group is 127: then the scale is 1 and nothing is rounded, not
// even to bf16.
std::vector<float> IntegerRows(const PackedMatrix& matrix, int64_t rows, uint32_t seed) {
  TestRandom random(seed);
  std::vector<float> x(rows * matrix.cols());
  for (float& value : x) value = static_cast<float>(random.integer(-127, 127));
  for (int64_t row = 0; row < rows; ++row) {
    for (const PackedMatrix::Segment& segment : matrix.segments()) {
      for (int32_t i = 0; i < segment.count; i += kActivationGroup) {
        const int width = std::min(kActivationGroup, segment.count - i);
        x[row * matrix.cols() + segment.begin + i + random.integer(0, width - 1)] =
            random.integer(0, 1) ? 127 : -127;
      }
    }
  }
  return x;
}

// Every product and every sum is an integer below 2^24: all levels must give exactly the same, in any order.
void ExpectExact(const KernelTable& kernels, const MatrixSpec& spec, int64_t rows, Draw draw) {
  SCOPED_TRACE(Describe(spec) + " rows " + std::to_string(rows));
  const Weights weights = MakeWeights(spec, draw);
  const std::vector<float> x = IntegerRows(weights.packed, rows, 7);
  ASSERT_EQ(weights.packed.roots().size(), 1u);
  const std::vector<float> y = Multiply(kernels, weights.packed, x, rows);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t n = 0; n < spec.rows; ++n) {
      double expected = 0;
      for (int64_t k = 0; k < spec.cols; ++k) expected += weights.dense[n][k] * x[row * spec.cols + k];
      ASSERT_EQ(y[row * spec.rows + n], expected) << "row " << row << " output " << n;
    }
  }
}

class MatmulTest : public KernelLevelTest {};
BW_INSTANTIATE_FOR_KERNEL_LEVELS(MatmulTest);

TEST_P(MatmulTest, IntegersComeOutExactly) {
  const std::vector<int64_t> bounds = {0, 20, 20, 60, 61, 100, 133};
  for (Draw draw : {Draw::kIntegers, Draw::kExtremes}) {
    for (const MatrixSpec& spec : Variants({.rows = 150, .cols = 133})) {
      for (int64_t rows : {1, 2, 5, 9}) ExpectExact(kernels(), spec, rows, draw);
      // A single row is done another way, also as the last one of many.
      for (int64_t rows : {1, 3, 49}) ExpectExact(kernels(), WithSlices(spec, bounds), rows, draw);
    }
  }
}

TEST_P(MatmulTest, EveryTailIsExact) {
  for (WeightFormat format : kFormats) {
    const MatrixSpec spec{.rows = 150, .cols = 9, .format = format};
    for (int64_t rows = 0; rows <= 130; ++rows) ExpectExact(kernels(), spec, rows, Draw::kIntegers);
    for (int64_t n = 1; n <= 130; ++n) {
      ExpectExact(kernels(), {.rows = n, .cols = 5, .format = format}, 1, Draw::kIntegers);
      ExpectExact(kernels(), {.rows = n, .cols = 37, .format = format}, 7, Draw::kIntegers);
    }
    for (int64_t k = 0; k <= 140; ++k) {
      ExpectExact(kernels(), {.rows = 20, .cols = k, .format = format}, 1, Draw::kIntegers);
      ExpectExact(kernels(), {.rows = 33, .cols = k, .format = format, .first_col = k % 50}, 6,
                  Draw::kIntegers);
    }
  }
}

// Long enough for kernels that cut the columns into pieces to keep them in a cache.
TEST_P(MatmulTest, LongRowsAreExact) {
  for (WeightFormat format : kFormats) {
    const bool extremes_overflow = IsQuantized(format);  // 2^24 is passed at 1024 columns of 127 * 127
    const int64_t cols = extremes_overflow ? 500 : 4001;
    ExpectExact(kernels(), {.rows = 80, .cols = cols, .format = format, .group = 64}, 8, Draw::kIntegers);
    ExpectExact(kernels(), {.rows = 80, .cols = cols, .format = format}, 1, Draw::kIntegers);
  }
}

std::vector<double> QuantizeLiterally(const PackedMatrix& matrix, const float* x) {
  std::vector<double> values(matrix.cols());
  for (const PackedMatrix::Segment& segment : matrix.segments()) {
    for (int32_t i = 0; i < segment.count; i += kActivationGroup) {
      const int32_t width = std::min(kActivationGroup, segment.count - i);
      float maximum = 0;
      for (int32_t j = 0; j < width; ++j) maximum = std::max(maximum, std::abs(x[segment.begin + i + j]));
      const float scale = maximum / 127.0f;
      for (int32_t j = 0; j < width; ++j) {
        const int32_t col = segment.begin + i + j;
        values[col] = scale == 0 ? 0 : double{scale} * std::nearbyint(x[col] / scale);
      }
    }
  }
  return values;
}

// u = kRoundoff, S = sum |x||w| over one output.
// Float formats: a sum of K rounded products in any order is off by at most (K + 1) u S to first order; the
// tree of slices adds at most log2(slices) + 1 roundings, bounded here by 15 for all of them. If activations
// are rounded to bf16, each is off by a share of 2^-9, hence 2^-9 S; vdpbf16ps flushes results below 2^-126
// to zero. Quantised formats: integer dots are exact; a block's scale * (scale * dot + offset * sum) takes 5
// roundings of terms that are bounded by the block's share of S, and the blocks are then summed.
double Tolerance(const KernelTable& kernels, const PackedMatrix& matrix, double sum_of_magnitudes) {
  const double terms = IsQuantized(matrix.format()) ? matrix.blocks().size() + 5 : matrix.packed_cols() + 1;
  double share = (terms + 15) * kRoundoff;
  if (kernels.level == KernelLevel::kAvx512Bf16 && matrix.format() == WeightFormat::kBF16) share += 0x1.01p-9;
  return share * sum_of_magnitudes + static_cast<double>(matrix.packed_cols()) * 0x1p-126;
}

TEST_P(MatmulTest, StaysWithinTheDerivedBound) {
  constexpr int64_t kRows = 3;
  for (int64_t cols : {33, 257, 4200}) {
    for (MatrixSpec spec : Variants({.rows = 144, .cols = cols})) {
      if (cols == 257) spec = WithSlices(spec, {0, 64, 80, 81, 200, 257});
      // Segments that kernels cut into several pieces.
      if (cols == 4200) spec = WithSlices(spec, {0, 900, 4200});
      SCOPED_TRACE(Describe(spec));
      const Weights weights = MakeWeights(spec);
      TestRandom random(3);
      const std::vector<float> x = random.floats(kRows * cols, 3);
      const std::vector<float> y = Multiply(kernels(), weights.packed, x, kRows);
      const std::vector<float> first(x.begin(), x.begin() + cols);
      ASSERT_TRUE(SameBits(Multiply(kernels(), weights.packed, first, 1).data(), y.data(), spec.rows));
      for (int64_t row = 0; row < kRows; ++row) {
        std::vector<double> values(x.begin() + row * cols, x.begin() + (row + 1) * cols);
        if (IsQuantized(spec.format)) values = QuantizeLiterally(weights.packed, &x[row * cols]);
        for (int64_t n = 0; n < spec.rows; ++n) {
          double expected = 0, magnitudes = 0;
          for (int64_t k = 0; k < cols; ++k) {
            expected += values[k] * weights.dense[n][k];
            magnitudes += std::abs(values[k]) * weights.magnitude[n][k];
          }
          ASSERT_TRUE(
              Within(y[row * spec.rows + n], expected, Tolerance(kernels(), weights.packed, magnitudes)))
              << "row " << row << " output " << n;
        }
      }
    }
  }
}

TEST_P(MatmulTest, ARowIsTheSameAloneAndAmongOthers) {
  constexpr int64_t kRows = 23;
  for (MatrixSpec spec : Variants({.rows = 150, .cols = 133})) {
    for (bool sliced : {false, true}) {
      if (sliced) spec = WithSlices(spec, {0, 20, 20, 60, 61, 100, 133});
      SCOPED_TRACE(Describe(spec));
      const Weights weights = MakeWeights(spec);
      TestRandom random(4);
      const std::vector<float> x = random.floats(kRows * spec.cols);
      const std::vector<float> all = Multiply(kernels(), weights.packed, x, kRows);
      for (int64_t count : {1, 2, 3, 4, 5, 6, 8, 16}) {
        for (int64_t row = 0; row + count <= kRows; row += 5) {
          const std::vector<float> part(x.begin() + row * spec.cols, x.begin() + (row + count) * spec.cols);
          const std::vector<float> y = Multiply(kernels(), weights.packed, part, count);
          ASSERT_TRUE(SameBits(y.data(), all.data() + row * spec.rows, count * spec.rows))
              << row << " + " << count;
        }
      }
    }
  }
}

TEST_P(MatmulTest, HowWorkIsSplitDoesNotMatter) {
  constexpr int64_t kRows = 7, kGap = 3;
  for (const MatrixSpec& spec : Variants(WithSlices({.rows = 300}, {0, 30, 77, 133}))) {
    SCOPED_TRACE(Describe(spec));
    const Weights weights = MakeWeights(spec);
    const PackedMatrix& matrix = weights.packed;
    TestRandom random(5);
    // Rows that start off any alignment, wider than the matrix.
    const std::vector<float> x = random.floats(1 + kRows * (spec.cols + kGap));
    std::vector<float> dense;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t k = 0; k < spec.cols; ++k) dense.push_back(x[1 + r * (spec.cols + kGap) + k]);
    }
    const std::vector<float> whole = Multiply(kernels(), matrix, dense, kRows);
    AlignedBuffer prepared = *AlignedBuffer::Allocate(kRows * matrix.prepared_row_bytes());
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{5, 7}, {0, 1}, {1, 5}}) {
      kernels().prepare_rows(matrix, {x.data() + 1, kRows, spec.cols + kGap}, begin, end, prepared.data());
    }
    const int64_t stride = spec.rows + kGap;
    for (int64_t rows : {int64_t{1}, kRows}) {
      std::vector<float> y(1 + rows * stride, -7.0f);
      for (int64_t panel = matrix.panels(); panel-- > 0;) {
        kernels().matmul({.weights = &matrix,
                          .prepared = prepared.data(),
                          .rows = rows,
                          .panel_begin = panel,
                          .panel_end = panel + 1,
                          .y = y.data() + 1,
                          .stride = stride});
      }
      EXPECT_EQ(y[0], -7);
      for (int64_t r = 0; r < rows; ++r) {
        ASSERT_TRUE(SameBits(&y[1 + r * stride], &whole[r * spec.rows], spec.rows)) << "row " << r;
        for (int64_t i = 0; i < kGap; ++i)
          EXPECT_EQ(y[1 + r * stride + spec.rows + i], -7) << "past row " << r;
      }
    }
  }
}

// The slices [begin, end) of a matrix, as one rank holds them.
MatrixSpec RankSpec(const MatrixSpec& whole, int begin, int end) {
  MatrixSpec spec = whole;
  spec.slices = {begin, end};
  spec.first_col = whole.first_col + whole.slice_bounds[begin];
  spec.cols = whole.slice_bounds[end] - whole.slice_bounds[begin];
  spec.slice_bounds.clear();
  for (int i = begin; i <= end; ++i)
    spec.slice_bounds.push_back(whole.slice_bounds[i] - whole.slice_bounds[begin]);
  return spec;
}

TEST_P(MatmulTest, AnySplitOfSlicesOverRanksGivesTheSameSum) {
  constexpr int64_t kRows = 2;
  const std::vector<std::vector<int>> splits = {
      {0, 7},      {0, 1, 7}, {0, 3, 7}, {0, 4, 7}, {0, 2, 5, 7}, {0, 3, 3, 5, 7}, {0, 1, 2, 3, 4, 5, 6, 7},
      {0, 0, 6, 7}};
  for (const MatrixSpec& spec : Variants(WithSlices({.rows = 150}, {0, 20, 40, 40, 75, 108, 109, 150}))) {
    SCOPED_TRACE(Describe(spec));
    const Weights whole = MakeWeights(spec);
    TestRandom random(6);
    const std::vector<float> x = random.floats(kRows * spec.cols);
    const std::vector<float> expected = Multiply(kernels(), whole.packed, x, kRows);
    for (const std::vector<int>& split : splits) {
      std::vector<SliceRange> roots;
      std::vector<std::vector<float>> sums;
      for (size_t rank = 0; rank + 1 < split.size(); ++rank) {
        const Weights shard = MakeWeights(RankSpec(spec, split[rank], split[rank + 1]));
        const int64_t begin = spec.slice_bounds[split[rank]], cols = shard.packed.cols();
        std::vector<float> part;
        for (int64_t r = 0; r < kRows; ++r) {
          part.insert(part.end(), x.begin() + r * spec.cols + begin,
                      x.begin() + r * spec.cols + begin + cols);
        }
        const std::vector<float> y = Multiply(kernels(), shard.packed, part, kRows);
        const int64_t size = kRows * spec.rows;
        part.resize(cols);  // a single row is done another way
        const std::vector<float> first_row = Multiply(kernels(), shard.packed, part, 1);
        for (size_t root = 0; root < shard.packed.roots().size(); ++root) {
          ASSERT_TRUE(SameBits(&first_row[root * spec.rows], &y[root * size], spec.rows));
          roots.push_back(shard.packed.roots()[root]);
          sums.emplace_back(y.begin() + root * size, y.begin() + (root + 1) * size);
        }
      }
      int next = 0;
      const auto add = [&](std::vector<float> left, const std::vector<float>& right) {
        kernels().add(left.data(), right.data(), static_cast<int64_t>(left.size()), left.data());
        return left;
      };
      const auto total = SumInTreeOrder<std::vector<float>>(
          {0, 7}, roots, next, [&](int i) { return sums[i]; }, add);
      ASSERT_TRUE(SameBits(total, expected)) << split.size() - 1 << " ranks";
    }
  }
}

// An empty slice is a partial sum of +0 that is still added: a product that underflows to -0 must not show
// through.
TEST_P(MatmulTest, AnEmptySliceStillAddsZero) {
  for (WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    PackedMatrix matrix = *PackedMatrix::Create(WithSlices({.rows = 20, .format = format}, {0, 1, 1}));
    const float tiny = 0x1p-100f, minus_tiny = -tiny;
    for (int64_t row = 0; row < 20; ++row) matrix.SetRow(row, absl::MakeConstSpan(&tiny, 1));
    for (float y : Multiply(kernels(), matrix, {minus_tiny}, 1)) EXPECT_FALSE(std::signbit(y));
  }
}

TEST_P(MatmulTest, RanksWithoutSlicesWriteNothing) {
  for (WeightFormat format : kFormats) {
    MatrixSpec spec{.rows = 20, .format = format, .slices = {1, 1}, .slices_total = 2, .slice_bounds = {0}};
    EXPECT_TRUE(Multiply(kernels(), *PackedMatrix::Create(spec), {}, 3).empty());
  }
}

TEST_P(MatmulTest, NoColumnsGiveZero) {
  for (WeightFormat format : kFormats) {
    const PackedMatrix matrix = *PackedMatrix::Create({.rows = 150, .cols = 0, .format = format});
    for (int64_t rows : {1, 3}) {
      EXPECT_TRUE(SameBits(Multiply(kernels(), matrix, {}, rows), std::vector<float>(rows * 150, 0.0f)));
    }
  }
}

TEST_P(MatmulTest, ZerosGiveZero) {
  for (const MatrixSpec& spec : Variants(WithSlices({.rows = 150}, {0, 20, 75, 133}))) {
    SCOPED_TRACE(Describe(spec));
    const Weights weights = MakeWeights(spec);
    for (int64_t rows : {1, 5}) {
      const std::vector<float> zeros(rows * spec.cols);
      const std::vector<float> y = Multiply(kernels(), weights.packed, zeros, rows);
      ASSERT_TRUE(std::all_of(y.begin(), y.end(), [](float value) { return value == 0; }));
    }
  }
}

// Subnormals, infinities and NaN among them; vdpbf16ps alone takes subnormals for zeros.
TEST_P(MatmulTest, EveryHalfIsReadExactly) {
  const float one = 1;
  for (WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    PackedMatrix matrix = *PackedMatrix::Create({.rows = 65536, .cols = 1, .format = format});
    const auto value = [&](int64_t bits) {
      return format == WeightFormat::kF16 ? F32FromF16(static_cast<uint16_t>(bits))
                                          : F32FromBF16(static_cast<uint16_t>(bits));
    };
    for (int64_t bits = 0; bits < 65536; ++bits) {
      const float half = value(bits);
      matrix.SetRow(bits, absl::MakeConstSpan(&half, 1));
    }
    const std::vector<float> y = Multiply(kernels(), matrix, {one}, 1);
    for (int64_t bits = 0; bits < 65536; ++bits) {
      const float expected = value(bits);
      const bool flushed = kernels().level == KernelLevel::kAvx512Bf16 && std::abs(expected) < 0x1p-126f;
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(y[bits])) << "bits " << bits;
      } else {
        ASSERT_TRUE(y[bits] == expected || (flushed && y[bits] == 0)) << y[bits] << " for " << expected;
      }
    }
  }
}

TEST_P(MatmulTest, NonFiniteActivationsStayInTheirRow) {
  constexpr int64_t kRows = 9;
  for (const MatrixSpec& spec : Variants(WithSlices({.rows = 150}, {0, 20, 75, 133}))) {
    SCOPED_TRACE(Describe(spec));
    const Weights weights = MakeWeights(spec);
    TestRandom random(8);
    const std::vector<float> clean = random.floats(kRows * spec.cols);
    const std::vector<float> expected = Multiply(kernels(), weights.packed, clean, kRows);
    std::vector<float> x = clean;
    x[2 * spec.cols + 19] = kNaN;
    x[3 * spec.cols + 40] = kInfinity;
    x[7 * spec.cols + 132] = -kInfinity;
    const std::vector<float> y = Multiply(kernels(), weights.packed, x, kRows);
    const std::vector<float> alone(x.begin() + 2 * spec.cols, x.begin() + 3 * spec.cols);
    for (float value : Multiply(kernels(), weights.packed, alone, 1)) ASSERT_FALSE(std::isfinite(value));
    for (int64_t row = 0; row < kRows; ++row) {
      if (row == 2 || row == 3 || row == 7) {
        for (int64_t n = 0; n < spec.rows; ++n) ASSERT_FALSE(std::isfinite(y[row * spec.rows + n])) << row;
      } else {
        ASSERT_TRUE(SameBits(&y[row * spec.rows], &expected[row * spec.rows], spec.rows)) << "row " << row;
      }
    }
  }
}

class PrepareRowsTest : public KernelLevelTest {};
BW_INSTANTIATE_FOR_KERNEL_LEVELS(PrepareRowsTest);

// Zeros, halves that round to even, the coarse end of the float range, its top: the documented bytes at every
// level.
TEST_P(PrepareRowsTest, QuantizesAsDocumented) {
  const MatrixSpec spec = WithSlices({.rows = 1, .format = WeightFormat::kInt8, .group = 16, .first_col = 5},
                                     {0, 20, 20, 83, 84, 150, 190});
  const PackedMatrix matrix = *PackedMatrix::Create(spec);
  TestRandom random(9);
  std::vector<float> x = random.floats(spec.cols, 5);
  for (int k = 20; k < 52; ++k) x[k] = 0;
  for (int k = 84; k < 116; ++k) x[k] = static_cast<float>(k - 100) + 0.5f;
  x[84] = 127;
  for (int k = 116; k < 148; ++k) x[k] *= 0x1p-140f;
  for (int k = 150; k < 182; ++k) x[k] *= 0x1p125f;
  const Prepared prepared(kernels(), matrix, {x.data(), 1, spec.cols});
  const auto* q = reinterpret_cast<const int8_t*>(prepared.bytes.data());
  const auto* scales =
      reinterpret_cast<const BlockScale*>(prepared.bytes.data() + (matrix.packed_cols() + 63) / 64 * 64);
  for (const PackedMatrix::Segment& segment : matrix.segments()) {
    for (int b = segment.block_begin; b < segment.block_end; ++b) {
      const PackedMatrix::Block& block = matrix.blocks()[b];
      const int group = (block.begin - segment.begin) / 32 * 32;
      float maximum = 0;
      for (int i = group; i < std::min(group + 32, segment.count); ++i) {
        maximum = std::max(maximum, std::abs(x[segment.begin + i]));
      }
      const float scale = maximum / 127.0f;
      ASSERT_EQ(scales[b].scale, scale) << "block " << b;
      int sum = 0;
      for (int i = 0; i < block.padded; ++i) {
        const float value = i < block.count ? x[block.begin + i] : 0;
        const int expected =
            scale == 0 ? 0 : static_cast<int>(std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f));
        ASSERT_EQ(q[block.packed_begin + i], expected) << "block " << b << " column " << i;
        sum += expected;
      }
      EXPECT_EQ(scales[b].sum, sum);
    }
  }
}

TEST_P(PrepareRowsTest, WritesOnlyTheRowsAskedFor) {
  for (WeightFormat format : kFormats) {
    const PackedMatrix matrix = *PackedMatrix::Create({.rows = 1, .cols = 45, .format = format});
    const int64_t bytes = matrix.prepared_row_bytes();
    AlignedBuffer prepared = *AlignedBuffer::Allocate(4 * bytes);
    std::fill(prepared.data(), prepared.data() + 4 * bytes, std::byte{0x5a});
    TestRandom random(10);
    const std::vector<float> x = random.floats(4 * 45);
    kernels().prepare_rows(matrix, {x.data(), 4, 45}, 1, 3, prepared.data());
    const auto untouched = [](std::byte value) { return value == std::byte{0x5a}; };
    EXPECT_TRUE(std::all_of(prepared.data(), prepared.data() + bytes, untouched));
    EXPECT_TRUE(std::all_of(prepared.data() + 3 * bytes, prepared.data() + 4 * bytes, untouched));
    EXPECT_FALSE(std::all_of(prepared.data() + 2 * bytes, prepared.data() + 3 * bytes, untouched));
  }
}

}  // namespace
}  // namespace bellwether::kernels
