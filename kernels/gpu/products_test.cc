// Products on the emulated GPU against the numeric contract, to the bit: every kernel of every format, with
// every number of rows that is an edge of one.

#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/emulated_gpu.h"
#include "kernels/gpu/testing/kernel_coverage.h"
#include "kernels/gpu/testing/random_matrix.h"
#include "kernels/gpu/tile_kernels.h"

namespace bellwether::gpu {
namespace {

using kernels::MatrixSpec;

[[maybe_unused]] const auto* const coverage = CheckCoverage("products_test");

struct Shape {
  std::string name;
  MatrixSpec spec;
  bool bias = false;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

MatrixSpec Whole(int64_t rows, int64_t cols, WeightFormat format) {
  return {.rows = rows, .cols = cols, .format = format};
}
MatrixSpec Grouped(MatrixSpec spec, int group, bool has_offset = false, bool half_scales = false) {
  spec.group = group;
  spec.has_offset = has_offset;
  spec.half_scales = half_scales;
  return spec;
}
MatrixSpec Sliced(MatrixSpec spec, SliceRange slices, int total, std::vector<int64_t> bounds) {
  spec.slices = slices;
  spec.slices_total = total;
  spec.cols = bounds.back();
  spec.slice_bounds = std::move(bounds);
  return spec;
}
// Sixteen slices of `each` columns: one root, halves first.
MatrixSpec Even(MatrixSpec spec, int64_t each) {
  std::vector<int64_t> bounds;
  for (int i = 0; i <= 16; ++i) bounds.push_back(i * each);
  return Sliced(spec, {0, 16}, 16, std::move(bounds));
}
// A rank's share of a model that nothing divides: odd and empty slices, several roots, cut groups.
MatrixSpec Odd(MatrixSpec spec) {
  spec.first_col = 133;
  return Sliced(spec, {3, 9}, 11, {0, 20, 20, 60, 61, 100, 133});
}
// Two slices of a 7B LLaMA's down projection, which cut groups of 128.
MatrixSpec Cut(MatrixSpec spec) {
  spec.first_col = 672;
  return Sliced(spec, {1, 3}, 16, {0, 704, 1376});
}
// Slices of several segments: sums on a stack.
MatrixSpec Long(MatrixSpec spec) { return Sliced(spec, {0, 3}, 4, {0, 1040, 1056, 1320}); }

std::vector<Shape> Shapes() {
  constexpr WeightFormat kBF16 = WeightFormat::kBF16, kInt8 = WeightFormat::kInt8,
                         kInt4 = WeightFormat::kInt4;
  std::vector<Shape> shapes = {{"bf16", Whole(150, 600, kBF16), true},
                               {"bf16_narrow", Whole(5, 41, kBF16)},
                               {"bf16_even", Even(Whole(37, 0, kBF16), 32), true},
                               {"bf16_odd", Odd(Whole(150, 0, kBF16))},
                               {"bf16_long", Long(Whole(20, 0, kBF16))},
                               {"int8_each", Grouped(Whole(150, 600, kInt8), 32), true},
                               {"int8_units", Grouped(Whole(150, 632, kInt8), 64), true},
                               {"int8_units_of_four", Grouped(Whole(37, 632, kInt8), 128, true, true), true},
                               {"int8_units_even", Grouped(Even(Whole(20, 0, kInt8), 64), 64, false, true)},
                               {"int8_halves", Grouped(Whole(37, 300, kInt8), 16, true), true},
                               {"int8_units_odd", Grouped(Odd(Whole(150, 0, kInt8)), 64, true, true)},
                               {"int8_each_long", Grouped(Long(Whole(20, 0, kInt8)), 32, true)},
                               {"int8_empty", Grouped(Sliced(Whole(20, 0, kInt8), {0, 2}, 4, {0, 0, 0}), 32)},
                               {"int8_halves_long", Grouped(Long(Whole(20, 0, kInt8)), 16)},
                               {"int8_units_short_set", Grouped(Whole(20, 600, kInt8), 64, false, true)},
                               {"int4_each", Grouped(Whole(150, 600, kInt4), 64), true},
                               {"int4_units_of_two", Grouped(Whole(37, 632, kInt4), 128, true, true), true},
                               {"int4_each_even", Grouped(Even(Whole(20, 0, kInt4), 64), 64, false, true)},
                               {"int4_halves", Grouped(Whole(150, 600, kInt4), 32), true},
                               {"int4_halves_even", Grouped(Even(Whole(20, 0, kInt4), 64), 32, true, true)},
                               {"int4_quarters", Grouped(Whole(37, 300, kInt4), 16, true), true},
                               {"int4_halves_odd", Grouped(Odd(Whole(150, 0, kInt4)), 32, true)},
                               {"int4_units_cut", Grouped(Cut(Whole(20, 0, kInt4)), 128, true, true)},
                               {"int4_units_long", Grouped(Long(Whole(20, 0, kInt4)), 128)}};
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16}) {
    const std::string name(Name(format));
    shapes.push_back({name, Whole(150, 600, format), true});
    shapes.push_back({name + "_even", Even(Whole(20, 0, format), 32)});
    shapes.push_back({name + "_odd", Odd(Whole(37, 0, format))});
    shapes.push_back({name + "_long", Long(Whole(20, 0, format))});
  }
  return shapes;
}

constexpr int kRowsMax = 130;
constexpr int64_t kGap = 3;  // floats between rows that no kernel may touch

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// A matrix, rows to multiply it with, and the answers.
class ProductTest : public ::testing::TestWithParam<Shape> {
 protected:
  explicit ProductTest(const EmulatedCard& card = kEmulatedHopper)
      : gpu_(1, card), numerics_(gpu_.tensor_core()), matrix_(GetParam().spec, 11), weights_(gpu_, matrix_) {
    TestRandom random(12);
    x_ = random.Wide(kRowsMax * cols());
    x_device_ = gpu_.Put(x_);
    if (GetParam().bias) bias_ = random.Wide(outputs());
    bias_device_ = gpu_.Put(bias_);
  }

  int64_t outputs() const { return GetParam().spec.rows; }
  int64_t cols() const { return GetParam().spec.cols; }
  int64_t stride() const { return outputs() + kGap; }
  int64_t roots() const { return static_cast<int64_t>(weights_.form.roots.size()); }

  const std::vector<float>& Expected(int row, int64_t output) {
    auto& expected = expected_[row * outputs() + output];
    if (expected.empty()) {
      expected = ReferenceProduct(matrix_, output, x_.data() + row * cols(), numerics_).Roots();
      if (!bias_.empty()) expected[0] += bias_[output];
    }
    return expected;
  }

  float* NewOutput(int rows) { return gpu_.Untouched(roots() * rows * stride()); }
  void ExpectRight(const float* y, int rows, const std::string& what) {
    ASSERT_EQ(FirstDifference(gpu_.Get(y, roots() * rows * stride()), rows), "") << what;
  }
  // Where `values` are not the answers, to the bit; empty if nowhere.
  std::string FirstDifference(const std::vector<float>& values, int rows) {
    for (int64_t root = 0; root < roots(); ++root) {
      for (int row = 0; row < rows; ++row) {
        for (int64_t output = 0; output < stride(); ++output) {
          const uint32_t seen = Bits(values[(root * rows + row) * stride() + output]);
          const uint32_t expected =
              output < outputs() ? Bits(Expected(row, output)[root]) : EmulatedGpu::kUntouched;
          if (seen == expected) continue;
          return absl::StrCat("root ", root, " row ", row, " output ", output, ": ", absl::Hex(seen),
                              ", not ", absl::Hex(expected));
        }
      }
    }
    return "";
  }

  // The operand of `rows` rows, and sums of x where the format wants them.
  struct Prepared {
    uint32_t* operand = nullptr;
    int64_t limb_words = 0;
    float* set_sums = nullptr;
  };
  Prepared Prepare(int rows, OperandOrder order) {
    const DeviceForm& form = weights_.form;
    const int64_t padded = order == OperandOrder::kPieces ? RoundUp(rows, kPieceRows) : RoundUp(rows, 8);
    const int64_t words = padded * form.packed_cols() / 2;
    Prepared prepared{.operand = gpu_.Untouched<uint32_t>(Limbs(form.format) * words), .limb_words = words};
    if (cols() == 0) return prepared;
    gpu_.Launch(
        Kernel::prepare,
        {.grid_x = BlocksOf(form.packed_cols() / 2, 256), .grid_y = std::min(rows, 50), .threads = 256},
        PrepareArgs{.x = x_device_,
                    .stride = cols(),
                    .rows = rows,
                    .cols = static_cast<int32_t>(cols()),
                    .steps = form.packed_columns_are_columns ? nullptr : weights_.steps,
                    .out = {prepared.operand, form.packed_cols(), order, Limbs(form.format), words}});
    if (!form.has_offset) return prepared;
    prepared.set_sums = gpu_.Untouched(RoundUp(rows, 8) * form.sets);
    gpu_.Launch(Kernel::set_sums,
                {.grid_x = BlocksOf(form.sets, 256), .grid_y = std::min(rows, 50), .threads = 256},
                SetSumsArgs{.x = x_device_,
                            .stride = cols(),
                            .rows = rows,
                            .sets = form.sets,
                            .columns = weights_.set_columns,
                            .sums = prepared.set_sums});
    return prepared;
  }

  void Stream(const Prepared& prepared, int rows, int tiles_m, int tiles_n, int warps, float* y);
  void Tile(const Prepared& prepared, int rows, const TileKernel& tile, float* y);

  EmulatedGpu gpu_;
  const TensorCoreClass numerics_;
  const RandomMatrix matrix_;
  DeviceWeights weights_;
  std::vector<float> x_, bias_;
  const float* x_device_ = nullptr;
  const float* bias_device_ = nullptr;
  std::map<int64_t, std::vector<float>> expected_;
};

// The kernel of `form` that takes so many tiles at once, if there is one.
std::optional<Kernel> StreamKernel(const DeviceForm& form, int tiles_m, int tiles_n) {
  struct Row {
    WeightFormat format;
    SetEnds set_ends;  // of a quantised format
    int tiles_m, tiles_n;
    Kernel kernel;
  };
  constexpr Row kRows[] = {
      {WeightFormat::kBF16, SetEnds::kUnits, 1, 1, Kernel::stream_bf16_1x1},
      {WeightFormat::kBF16, SetEnds::kUnits, 1, 2, Kernel::stream_bf16_1x2},
      {WeightFormat::kF16, SetEnds::kUnits, 1, 1, Kernel::stream_fp16_1x1},
      {WeightFormat::kF16, SetEnds::kUnits, 1, 2, Kernel::stream_fp16_1x2},
      {WeightFormat::kF32, SetEnds::kUnits, 1, 1, Kernel::stream_fp32_1x1},
      {WeightFormat::kF32, SetEnds::kUnits, 1, 2, Kernel::stream_fp32_1x2},
      {WeightFormat::kInt8, SetEnds::kEach, 1, 1, Kernel::stream_int8_each_1x1},
      {WeightFormat::kInt8, SetEnds::kEach, 2, 1, Kernel::stream_int8_each_2x1},
      {WeightFormat::kInt8, SetEnds::kEach, 1, 2, Kernel::stream_int8_each_1x2},
      {WeightFormat::kInt8, SetEnds::kUnits, 1, 1, Kernel::stream_int8_units_1x1},
      {WeightFormat::kInt8, SetEnds::kUnits, 2, 1, Kernel::stream_int8_units_2x1},
      {WeightFormat::kInt8, SetEnds::kUnits, 1, 2, Kernel::stream_int8_units_1x2},
      {WeightFormat::kInt8, SetEnds::kHalves, 1, 1, Kernel::stream_int8_halves_1x1},
      {WeightFormat::kInt4, SetEnds::kEach, 1, 1, Kernel::stream_int4_each_1x1},
      {WeightFormat::kInt4, SetEnds::kEach, 2, 1, Kernel::stream_int4_each_2x1},
      {WeightFormat::kInt4, SetEnds::kEach, 1, 2, Kernel::stream_int4_each_1x2},
      {WeightFormat::kInt4, SetEnds::kUnits, 1, 1, Kernel::stream_int4_units_1x1},
      {WeightFormat::kInt4, SetEnds::kUnits, 2, 1, Kernel::stream_int4_units_2x1},
      {WeightFormat::kInt4, SetEnds::kUnits, 1, 2, Kernel::stream_int4_units_1x2},
      {WeightFormat::kInt4, SetEnds::kHalves, 1, 1, Kernel::stream_int4_halves_1x1},
      {WeightFormat::kInt4, SetEnds::kHalves, 2, 1, Kernel::stream_int4_halves_2x1},
      {WeightFormat::kInt4, SetEnds::kHalves, 1, 2, Kernel::stream_int4_halves_1x2},
      {WeightFormat::kInt4, SetEnds::kQuarters, 1, 1, Kernel::stream_int4_quarters_1x1},
  };
  for (const Row& row : kRows) {
    if (row.format != form.format) continue;
    if (IsQuantized(form.format) && row.set_ends != SetEndsOf(form.format, form.set_steps)) continue;
    if (row.tiles_m != tiles_m || row.tiles_n != tiles_n) continue;
    return row.kernel;
  }
  return std::nullopt;
}

void ProductTest::Stream(const Prepared& prepared, int rows, int tiles_m, int tiles_n, int warps, float* y) {
  const DeviceForm& form = weights_.form;
  const int segments = static_cast<int>(form.segments.size());
  const std::optional<Kernel> kernel = StreamKernel(form, tiles_m, tiles_n);
  ASSERT_TRUE(kernel.has_value());
  for (int row = 0; row < rows; row += 8 * tiles_n) {
    StreamMatmulArgs args{
        .output_count = 1,
        .rows = std::min(rows - row, 8 * tiles_n),
        .warp_segments = BlocksOf(segments, warps),
        .x = reinterpret_cast<const Words4*>(prepared.operand) + row / 8 * form.packed_cols(),
        .limb_stride = prepared.limb_words / 4,
        .set_sums = prepared.set_sums == nullptr ? nullptr : prepared.set_sums + row * form.sets};
    args.outputs[0] = {.weights = weights_.view,
                       .y = y + row * stride(),
                       .bias = bias_device_,
                       .root_stride = rows * stride(),
                       .stride = stride()};
    gpu_.Launch(*kernel,
                {.grid_x = BlocksOf(form.tiles, tiles_m),
                 .threads = 32 * warps,
                 .shared_bytes = static_cast<int32_t>(StreamMatmulSharedBytes(segments, tiles_m, tiles_n))},
                args);
  }
}

// Sums of parts to a workspace, then the tree, as where a matrix has more parts than roots.
void ProductTest::Tile(const Prepared& prepared, int rows, const TileKernel& tile, float* y) {
  const DeviceForm& form = weights_.form;
  const DeviceForm::PartSums& sums = form.parts[tile.depth - 1];
  const auto parts = static_cast<int32_t>(sums.parts.size());
  const bool direct = parts == roots();
  float* partial = direct ? y : gpu_.Untouched(parts * rows * outputs());
  TileMatmulArgs args{.output_count = 1,
                      .rows = rows,
                      .parts = weights_.parts[tile.depth - 1],
                      .x = reinterpret_cast<const char*>(prepared.operand),
                      .limb_stride = prepared.limb_words * 4,
                      .set_sums = prepared.set_sums};
  args.outputs[0] = {.weights = weights_.view,
                     .y = partial,
                     .bias = direct ? bias_device_ : nullptr,
                     .part_stride = rows * (direct ? stride() : outputs()),
                     .stride = direct ? stride() : outputs()};
  gpu_.Launch(tile.kernel,
              {.grid_x = BlocksOf(rows, tile.rows),
               .grid_y = BlocksOf(form.tiles, kBlockTiles),
               .grid_z = parts,
               .threads = tile.threads,
               .shared_bytes = tile.shared_bytes},
              args);
  if (direct) return;
  SumTreeArgs tree{.leaves = partial,
                   .leaf_stride = rows * outputs(),
                   .stride = outputs(),
                   .out = y,
                   .root_stride = rows * stride(),
                   .out_stride = stride(),
                   .bias = bias_device_,
                   .rows = rows,
                   .cols = static_cast<int32_t>(outputs()),
                   .leaf_count = parts};
  std::copy(sums.additions.begin(), sums.additions.end(), tree.additions);
  std::copy(sums.ends.begin(), sums.ends.end(), tree.ends);
  // The short way for 2, 4 or 8 parts that are added halves first is asked for by who knows that they are.
  tree.balanced =
      form.roots.size() == 1 && form.roots[0].order == Root::kBalanced && parts >= 2 && parts <= 8;
  gpu_.Launch(Kernel::sum_tree,
              {.grid_x = BlocksOf(outputs(), 256), .grid_y = std::min(rows, 50), .threads = 256}, tree);
}

TEST_P(ProductTest, StreamFollowsTheContract) {
  for (const int rows : {1, 7, 8, 9, 16, 17}) {
    const Prepared prepared = Prepare(rows, OperandOrder::kFragments);
    for (const auto& [tiles_m, tiles_n] : {std::pair{1, 1}, {2, 1}, {1, 2}}) {
      const std::optional<Kernel> kernel = StreamKernel(weights_.form, tiles_m, tiles_n);
      if (!kernel.has_value()) continue;
      // No bit depends on the number of warps, of which some may have no segment.
      const int warps = std::min<int>(1 + rows % 4, static_cast<int>(weights_.form.segments.size()) + 1);
      const std::string what =
          absl::StrCat(kKernels[static_cast<int>(*kernel)].name, ", ", rows, " rows, ", warps, " warps");
      float* y = NewOutput(rows);
      Stream(prepared, rows, tiles_m, tiles_n, warps, y);
      ExpectRight(y, rows, what);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ProductTest, TilesFollowTheContract) {
  if (!gpu_.info().hopper) GTEST_SKIP() << "this card has no wgmma";
  const WeightFormat format = weights_.form.format;
  const int depths = format == WeightFormat::kBF16 ? 2 : 1;
  for (const auto& [rows, tile_rows] :
       {std::pair{1, 64}, {63, 64}, {64, 64}, {65, 64}, {17, 128}, {65, 128}, {kRowsMax, 128}}) {
    if (tile_rows == 128 && weights_.form.format == WeightFormat::kF32) continue;
    const Prepared prepared = Prepare(rows, OperandOrder::kPieces);
    for (int depth = 1; depth <= depths; ++depth) {
      float* y = NewOutput(rows);
      Tile(prepared, rows, WgmmaTile(format, tile_rows, depth), y);
      ExpectRight(y, rows,
                  absl::StrCat("tiles of ", tile_rows, " rows, a stack of ", depth, ", ", rows, " rows"));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ProductTest, TilesByMmaFollowTheContract) {
  const WeightFormat format = weights_.form.format;
  const int depths = format == WeightFormat::kBF16 ? 2 : 1;
  for (const int rows : {1, 33, 64, 73}) {
    const Prepared prepared = Prepare(rows, OperandOrder::kFragments);
    for (int depth = 1; depth <= depths; ++depth) {
      float* y = NewOutput(rows);
      Tile(prepared, rows, MmaTile(format, depth), y);
      ExpectRight(y, rows, absl::StrCat("tiles by mma, a stack of ", depth, ", ", rows, " rows"));
      if (HasFatalFailure()) return;
    }
  }
}

// The same kernels give the bits of the card's tensor cores, which are others.
class AmpereProductTest : public ProductTest {
 protected:
  AmpereProductTest() : ProductTest(kEmulatedAmpere) {}
};

TEST_P(AmpereProductTest, FollowsTheContract) {
  if (gpu_.on_card()) GTEST_SKIP() << "a card has one class";
  constexpr int kRows = 9;
  const Prepared prepared = Prepare(kRows, OperandOrder::kFragments);
  const int tiles_n = StreamKernel(weights_.form, 1, 2).has_value() ? 2 : 1;
  float* y = NewOutput(kRows);
  Stream(prepared, kRows, 1, tiles_n, /*warps=*/2, y);
  ExpectRight(y, kRows, "on Ampere");
  y = NewOutput(kRows);
  Tile(prepared, kRows, MmaTile(weights_.form.format, 1), y);
  ExpectRight(y, kRows, "tiles on Ampere");
  int others = 0;
  for (int64_t output = 0; output < outputs(); ++output) {
    const auto hopper = ReferenceProduct(matrix_, output, x_.data(), kHopperTensorCore).Roots();
    others += hopper.back() != ReferenceProduct(matrix_, output, x_.data(), numerics_).Roots().back();
  }
  EXPECT_GT(others, 0);
}

INSTANTIATE_TEST_SUITE_P(All, ProductTest, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Each, AmpereProductTest,
                         ::testing::Values(Shape{"bf16", Even(Whole(37, 0, WeightFormat::kBF16), 32)},
                                           Shape{"fp16", Whole(20, 300, WeightFormat::kF16)},
                                           Shape{"fp32", Whole(20, 300, WeightFormat::kF32)},
                                           Shape{"int8",
                                                 Grouped(Odd(Whole(50, 0, WeightFormat::kInt8)), 64, true)},
                                           Shape{"int4", Grouped(Whole(50, 600, WeightFormat::kInt4), 32)}),
                         [](const auto& info) { return info.param.name; });

// The same kernels, told by their tables to add in another order: what would be a fault that no tolerance
// finds is found by these comparisons.
class PlantedOrderTest : public ProductTest {
 protected:
  static constexpr int kRows = 9;

  int SegmentCount() const { return static_cast<int>(weights_.form.segments.size()); }
  void ExpectFound(const std::string& fault) {
    float* y = NewOutput(kRows);
    Stream(Prepare(kRows, OperandOrder::kFragments), kRows, 1, 1, 2, y);
    ExpectOnlyLastBitsDiffer(y, fault);
  }
  void ExpectOnlyLastBitsDiffer(const float* y, const std::string& fault) {
    const std::vector<float> values = gpu_.Get(y, kRows * stride());
    EXPECT_NE(FirstDifference(values, kRows), "") << fault;
    float largest = 0, most_off = 0;
    for (int row = 0; row < kRows; ++row) {
      for (int64_t output = 0; output < outputs(); ++output) {
        const float right = Expected(row, output)[0];
        largest = std::max(largest, std::abs(right));
        most_off = std::max(most_off, std::abs(values[row * stride() + output] - right));
      }
    }
    EXPECT_LT(most_off, largest * 1e-4f) << fault << " made another sum of it, not another order";
  }
};

TEST_P(PlantedOrderTest, SumsOfSegmentsThatSwapPlacesAreFound) {
  WeightTable& table = weights_.view.table;
  if (table.order == Root::kBalanced) {
    table.order = Root::kFold;
    return ExpectFound("slices from left to right, not by the tree");
  }
  std::vector<Segment> segments = weights_.form.segments;
  for (Segment& segment : segments) segment.additions = 0;
  segments.back().additions = SegmentCount() - 1;
  table.segments = gpu_.Put(segments);
  table.roots = gpu_.Put(std::vector<Root>{{0, SegmentCount(), Root::kStack}});
  table.order = Root::kStack;
  ExpectFound("segments from right to left");
}

TEST_P(PlantedOrderTest, OneRunningSumIsFound) {
  WeightTable& table = weights_.view.table;
  std::vector<Segment> whole = {weights_.form.segments.front()};
  whole[0].unit_end = table.units;
  table.segments = gpu_.Put(whole);
  table.segment_count = 1;
  table.unit_bounds[1] = table.units;
  table.roots = gpu_.Put(std::vector<Root>{{0, 1, Root::kFold}});
  table.order = Root::kFold;
  ExpectFound("one sum of all columns");
}

// Of tiles a second kernel adds the parts.
TEST_P(PlantedOrderTest, PartsThatSwapPlacesAreFound) {
  DeviceForm::PartSums& sums = weights_.form.parts[0];
  if (sums.parts.size() < 3) return;
  std::fill(sums.additions.begin(), sums.additions.end(), 0);
  sums.additions.back() = static_cast<uint8_t>(sums.parts.size() - 1);
  weights_.form.roots[0].order = Root::kStack;
  float* y = NewOutput(kRows);
  Tile(Prepare(kRows, OperandOrder::kFragments), kRows, MmaTile(weights_.form.format, 1), y);
  ExpectOnlyLastBitsDiffer(y, "parts from right to left");
}

std::vector<Shape> ShapesWithSegments() {
  std::vector<Shape> shapes;
  for (Shape& shape : Shapes()) {
    for (const char* name : {"bf16", "bf16_even", "int8_units", "int4_each", "int4_each_even", "fp32"}) {
      if (shape.name == name) shapes.push_back(shape);
    }
  }
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(All, PlantedOrderTest, ::testing::ValuesIn(ShapesWithSegments()),
                         [](const auto& info) { return info.param.name; });

// Query, key and value in one launch: three matrices of one table, of other heights.
template <typename Args>
void ExpectThreeOutputs(EmulatedGpu& gpu, int rows, OperandOrder order, Args args, Kernel kernel,
                        LaunchList::Shape shape) {
  constexpr int64_t kCols = 320;
  MatrixSpec spec = Grouped(Whole(0, kCols, WeightFormat::kInt8), 32, true, true);
  std::vector<RandomMatrix> matrices;
  std::vector<DeviceWeights> weights;
  TestRandom random(3);
  const std::vector<float> x = random.Wide(rows * kCols);
  const float* x_device = gpu.Put(x);
  for (const int64_t outputs : {150, 16, 37}) {
    spec.rows = outputs;
    weights.emplace_back(gpu, matrices.emplace_back(spec, 100 + outputs));
  }
  const DeviceForm& form = weights[0].form;
  auto* operand = gpu.Untouched<uint32_t>(RoundUp(rows, kPieceRows) * kCols / 2);
  float* set_sums = gpu.Untouched(RoundUp(rows, 8) * form.sets);
  gpu.Launch(
      Kernel::prepare, {.grid_x = 1, .grid_y = rows, .threads = 256},
      PrepareArgs{
          .x = x_device, .stride = kCols, .rows = rows, .cols = kCols, .out = {operand, kCols, order}});
  gpu.Launch(Kernel::set_sums, {.grid_x = 1, .grid_y = rows, .threads = 32},
             SetSumsArgs{.x = x_device,
                         .stride = kCols,
                         .rows = rows,
                         .sets = form.sets,
                         .columns = weights[0].set_columns,
                         .sums = set_sums});
  args.output_count = 3;
  args.rows = rows;
  args.x = reinterpret_cast<decltype(args.x)>(operand);
  args.set_sums = set_sums;
  std::vector<float*> y;
  for (int i = 0; i < 3; ++i) {
    const int64_t stride = matrices[i].spec.rows + kGap;
    y.push_back(gpu.Untouched(rows * stride));
    args.outputs[i].weights = weights[i].view;
    args.outputs[i].y = y[i];
    args.outputs[i].stride = stride;
  }
  gpu.Launch(kernel, shape, args);
  for (int i = 0; i < 3; ++i) {
    const int64_t outputs = matrices[i].spec.rows, stride = outputs + kGap;
    const std::vector<float> values = gpu.Get(y[i], rows * stride);
    for (int row = 0; row < rows; ++row) {
      for (int64_t o = 0; o < stride; ++o) {
        const uint32_t expected =
            o < outputs
                ? Bits(ReferenceProduct(matrices[i], o, x.data() + row * kCols, gpu.tensor_core()).Roots()[0])
                : EmulatedGpu::kUntouched;
        ASSERT_EQ(Bits(values[row * stride + o]), expected)
            << "matrix " << i << " row " << row << " output " << o;
      }
    }
  }
}

TEST(ProductsTest, OneLaunchTakesSeveralMatrices) {
  EmulatedGpu gpu;
  const int segments = 2;
  const StreamMatmulArgs two_warps{.warp_segments = segments / 2};
  ExpectThreeOutputs(gpu, 8, OperandOrder::kFragments, two_warps, Kernel::stream_int8_each_1x1,
                     {.grid_x = 10 + 1 + 3,
                      .threads = 64,
                      .shared_bytes = static_cast<int32_t>(StreamMatmulSharedBytes(segments, 1, 1))});
  // Two tiles a block: the second matrix has one only.
  ExpectThreeOutputs(gpu, 5, OperandOrder::kFragments, two_warps, Kernel::stream_int8_each_2x1,
                     {.grid_x = 5 + 1 + 2,
                      .threads = 64,
                      .shared_bytes = static_cast<int32_t>(StreamMatmulSharedBytes(segments, 2, 1))});
  const std::vector<Part> parts = {{0, segments}};
  const TileMatmulArgs tiles{.parts = gpu.Put(parts)};
  ExpectThreeOutputs(gpu, 70, OperandOrder::kFragments, tiles, Kernel::mma_tile_int8_1,
                     {.grid_x = 2,
                      .grid_y = 2 + 1 + 1,
                      .threads = kMmaTileThreads,
                      .shared_bytes = MmaTileSharedBytes(WeightFormat::kInt8)});
  if (!gpu.info().hopper) return;
  ExpectThreeOutputs(gpu, 70, OperandOrder::kPieces, tiles, Kernel::tile_int8_64_1,
                     {.grid_x = 2,
                      .grid_y = 2 + 1 + 1,
                      .threads = kTileMatmulThreads,
                      .shared_bytes = TileMatmulSharedBytes(WeightFormat::kInt8, 64)});
}

}  // namespace
}  // namespace bellwether::gpu
