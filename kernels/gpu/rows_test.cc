// The kernels between the products on the emulated GPU, against the contract to the bit; what is written
// beside their rows as operands; and elementary functions against libm.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/packed_row.h"
#include "gtest/gtest.h"
#include "kernels/gpu/device_math.h"
#include "kernels/gpu/testing/emulated_gpu.h"
#include "kernels/gpu/testing/kernel_coverage.h"
#include "kernels/gpu/testing/random_matrix.h"
#include "kernels/testing/sorted_largest.h"

namespace bellwether::gpu {
namespace {

[[maybe_unused]] const auto* const coverage = CheckCoverage("rows_test");

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// `values`, [rows][cols], `stride` floats apart and untouched between.
std::vector<float> Strided(const std::vector<float>& values, int64_t cols, int64_t stride) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols;
  std::vector<float> strided(rows * stride);
  for (float& value : strided) std::memcpy(&value, &EmulatedGpu::kUntouched, 4);
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(values.begin() + row * cols, cols, strided.begin() + row * stride);
  return strided;
}

void ExpectSame(const std::vector<float>& seen, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(seen.size(), expected.size());
  for (size_t i = 0; i < seen.size(); ++i)
    ASSERT_EQ(Bits(seen[i]), Bits(expected[i])) << what << ": value " << i;
}

// The operand of `limbs` limbs that rows of `cols` columns must be, one limb behind the other.
void ExpectOperand(const std::vector<uint32_t>& words, std::vector<float> rows, int64_t cols,
                   OperandOrder order, int limbs = 1) {
  std::vector<uint32_t> expected(words.size(), EmulatedGpu::kUntouched);
  const auto take = [](float& value) {
    const uint16_t limb = BF16FromF32(value);
    value -= F32FromBF16(limb);
    return limb;
  };
  for (int limb = 0; limb < limbs; ++limb) {
    const int64_t begin = limb * static_cast<int64_t>(words.size()) / limbs;
    for (size_t i = 0; i < rows.size(); i += 2) {
      const auto at = static_cast<int64_t>(i);
      const uint32_t low = take(rows[i]), high = take(rows[i + 1]);
      expected[begin + OperandWord(order, at / cols, at % cols, cols)] = low | high << 16;
    }
  }
  EXPECT_EQ(words, expected);
}

// operand.h, read literally: both orders hold the values that a tensor core step takes.
TEST(OperandTest, OrdersAreThoseOfTheTensorCore) {
  const int64_t cols = 96;
  for (int64_t row = 0; row < 130; ++row) {
    for (int64_t k = 0; k < cols; k += 2) {
      // B fragment of step k / 16: b[0] rows 2t, 2t+1 of column g, b[1] rows 2t+8, 2t+9; two steps a lane.
      const int64_t lane = row % 8 * 4 + k % 8 / 2, word = k % 32 / 16 * 2 + k % 16 / 8;
      EXPECT_EQ(OperandWord(OperandOrder::kFragments, row, k, cols),
                ((row / 8 * (cols / 32) + k / 32) * 32 + lane) * 4 + word);
      // Core matrices of 8 rows x 16 bytes; 64 rows of 32 columns are one piece.
      const int64_t piece = row / 64 * (cols / 32) + k / 32, matrix = row % 64 / 8 * 4 + k % 32 / 8;
      EXPECT_EQ(OperandWord(OperandOrder::kPieces, row, k, cols),
                piece * 1024 + matrix * 32 + row % 8 * 4 + k % 8 / 2);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------
// Norms

struct NormCase {
  int cols;
  bool layer_norm = false, add = false, add_bias = false, operand = false;
};

// The sum of 512 threads' values, as SumOverBlock has it: halves of a warp, then warps from first to last.
float SumOfThreads(std::vector<float> values) {
  float sum = 0;
  for (int warp = 0; warp < 16; ++warp) {
    float* lanes = values.data() + 32 * warp;
    for (int mask = 16; mask > 0; mask /= 2) {
      for (int lane = 0; lane < mask; ++lane) lanes[lane] += lanes[lane + mask];
    }
    sum = warp == 0 ? lanes[0] : sum + lanes[0];
  }
  return sum;
}

std::vector<float> ExpectedNorm(const std::vector<float>& x, const std::vector<float>& weight,
                                const std::vector<float>& bias, float epsilon) {
  const int cols = static_cast<int>(x.size());
  float mean = 0;
  if (!bias.empty()) {
    std::vector<float> partial(kNormThreads, 0.0f);
    for (int c = 0; c < cols; c += 2) partial[c / 2 % kNormThreads] += x[c] + x[c + 1];
    mean = SumOfThreads(partial) / static_cast<float>(cols);
  }
  std::vector<float> squares(kNormThreads, 0.0f);
  for (int c = 0; c < cols; c += 2) {
    float& sum = squares[c / 2 % kNormThreads];
    sum = std::fma(x[c + 1] - mean, x[c + 1] - mean, std::fma(x[c] - mean, x[c] - mean, sum));
  }
  const float factor = 1.0f / std::sqrt(SumOfThreads(squares) / static_cast<float>(cols) + epsilon);
  std::vector<float> y(cols);
  for (int c = 0; c < cols; ++c) {
    const float scaled = (x[c] - mean) * factor;
    y[c] = bias.empty() ? scaled * weight[c] : std::fma(scaled, weight[c], bias[c]);
  }
  return y;
}

void ExpectNorm(const NormCase& c, int rows) {
  EmulatedGpu gpu;
  TestRandom random(c.cols);
  const int64_t stride = c.cols + 6;
  const std::vector<float> x = random.Wide(rows * c.cols), sum = random.Wide(rows * c.cols);
  const std::vector<float> weight = random.Wide(c.cols), bias = random.Wide(c.cols),
                           add_bias = random.Wide(c.cols);
  float* x_device = gpu.Put(Strided(x, c.cols, stride));
  float* out = gpu.Untouched(rows * stride);
  const OperandOrder order = rows > 8 ? OperandOrder::kPieces : OperandOrder::kFragments;
  const int limbs = 1 + rows % kLimbsMax;
  const int64_t words = RoundUp(rows, kPieceRows) * c.cols / 2;
  auto* operand = gpu.Untouched<uint32_t>(limbs * words);
  NormArgs args{.x = x_device,
                .stride = stride,
                .weight = gpu.Put(weight),
                .bias = c.layer_norm ? gpu.Put(bias) : nullptr,
                .out = out,
                .out_stride = stride,
                .cols = c.cols,
                .epsilon = 1e-5f};
  if (c.operand) args.operand = {operand, c.cols, order, limbs, words};
  if (c.add) {
    args.sum = gpu.Put(Strided(sum, c.cols, stride));
    args.sum_stride = stride;
    args.add_bias = c.add_bias ? gpu.Put(add_bias) : nullptr;
    args.total = x_device;
    args.total_stride = stride;
  }
  gpu.Launch(Kernel::norm, {.grid_x = rows, .threads = kNormThreads, .shared_bytes = kNormSharedBytes}, args);
  std::vector<float> totals, expected;
  for (int row = 0; row < rows; ++row) {
    std::vector<float> total(c.cols);
    for (int col = 0; col < c.cols; ++col) {
      const int64_t at = row * c.cols + col;
      total[col] = !c.add ? x[at] : x[at] + (c.add_bias ? sum[at] + add_bias[col] : sum[at]);
    }
    const std::vector<float> y =
        ExpectedNorm(total, weight, c.layer_norm ? bias : std::vector<float>{}, 1e-5f);
    totals.insert(totals.end(), total.begin(), total.end());
    expected.insert(expected.end(), y.begin(), y.end());
  }
  ExpectSame(gpu.Get(out, rows * stride), Strided(expected, c.cols, stride), "norm");
  ExpectSame(gpu.Get(x_device, rows * stride), Strided(totals, c.cols, stride), "total");
  if (c.operand) ExpectOperand(gpu.Get(operand, limbs * words), expected, c.cols, order, limbs);
}

TEST(NormTest, FollowsTheContract) {
  for (const int cols : {2, 40, 1024, 1026, 2304, 9000}) {
    for (const bool layer_norm : {false, true}) {
      SCOPED_TRACE(absl::StrCat(cols, " columns", layer_norm ? ", LayerNorm" : ""));
      ExpectNorm({.cols = cols, .layer_norm = layer_norm}, 2);
      ExpectNorm({.cols = cols, .layer_norm = layer_norm, .add = true, .add_bias = cols > 40}, 1);
    }
  }
  for (const int rows : {1, 8, 9, 65}) ExpectNorm({.cols = 96, .add = true, .operand = true}, rows);
}

// ---------------------------------------------------------------------------------------------------------
// Activations, additions, picks

TEST(ActivateTest, FollowsTheContract) {
  for (const bool gelu : {false, true}) {
    for (const auto& [rows, cols] : {std::pair{1, 5}, {9, 64}, {3, 545}, {70, 32}}) {
      SCOPED_TRACE(absl::StrCat(gelu ? "GELU " : "SiLU ", rows, " x ", cols));
      EmulatedGpu gpu;
      TestRandom random(cols);
      const std::vector<float> gate = random.Wide(rows * cols), up = random.Wide(rows * cols);
      std::vector<float> expected(gate.size());
      for (size_t i = 0; i < gate.size(); ++i) expected[i] = gelu ? Gelu(gate[i]) : Silu(gate[i]) * up[i];
      const int64_t stride = cols + 3, words = RoundUp(rows, kPieceRows) * cols / 2;
      float* gate_device = gpu.Put(Strided(gate, cols, stride));
      const bool operand = cols % 32 == 0;
      auto* operand_device = gpu.Untouched<uint32_t>(words);
      ActivateArgs args{.gate = gate_device,
                        .up = gelu ? nullptr : gpu.Put(up),
                        .gate_stride = stride,
                        .up_stride = cols,
                        .rows = rows,
                        .cols = cols};
      if (operand) args.operand = {operand_device, cols, OperandOrder::kPieces};
      gpu.Launch(Kernel::activate,
                 {.grid_x = BlocksOf((cols + 1) / 2, 256), .grid_y = std::min(rows, 40), .threads = 256},
                 args);
      ExpectSame(gpu.Get(gate_device, rows * stride), Strided(expected, cols, stride), "activation");
      if (operand) ExpectOperand(gpu.Get(operand_device, words), expected, cols, OperandOrder::kPieces);
    }
  }
}

TEST(AddTest, FollowsTheContract) {
  for (const bool bias : {false, true}) {
    EmulatedGpu gpu;
    TestRandom random(5);
    const int rows = 37, cols = 300;
    const int64_t stride = cols + 1;
    const std::vector<float> before = random.Wide(rows * cols), sum = random.Wide(rows * cols),
                             b = random.Wide(cols);
    std::vector<float> expected(before.size());
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] = before[i] + (bias ? sum[i] + b[i % cols] : sum[i]);
    float* out = gpu.Untouched(rows * stride);
    gpu.Launch(Kernel::add, {.grid_x = 2, .grid_y = 10, .threads = 256},
               AddArgs{.before = gpu.Put(before),
                       .sum = gpu.Put(sum),
                       .bias = bias ? gpu.Put(b) : nullptr,
                       .out = out,
                       .before_stride = cols,
                       .sum_stride = cols,
                       .out_stride = stride,
                       .rows = rows,
                       .cols = cols});
    ExpectSame(gpu.Get(out, rows * stride), Strided(expected, cols, stride), "sum");
  }
}

TEST(PickRowsTest, CopiesTheRowsThatAreAskedFor) {
  EmulatedGpu gpu;
  TestRandom random(6);
  const int rows = 20, cols = 270;
  const std::vector<float> x = random.Wide(rows * cols);
  const std::vector<int32_t> picks = {19, 0, 7, 7, 1};
  std::vector<float> expected;
  for (const int32_t pick : picks)
    expected.insert(expected.end(), x.begin() + pick * cols, x.begin() + (pick + 1) * cols);
  const auto count = static_cast<int32_t>(picks.size());
  const int64_t stride = cols + 2;
  float* out = gpu.Untouched(count * stride);
  gpu.Launch(Kernel::pick_rows, {.grid_x = 2, .grid_y = count, .threads = 256},
             PickRowsArgs{.x = gpu.Put(x),
                          .out = out,
                          .stride = cols,
                          .out_stride = stride,
                          .cols = cols,
                          .count = count,
                          .picks = gpu.Put(picks)});
  ExpectSame(gpu.Get(out, count * stride), Strided(expected, cols, stride), "row");
}

TEST(PickRowsTest, CopiesTheColumnsThatAreAskedFor) {
  EmulatedGpu gpu;
  TestRandom random(7);
  const int rows = 3, cols = 270;
  const std::vector<float> x = random.Wide(rows * cols);
  std::vector<float> columns(cols), expected(rows * cols);
  for (int i = 0; i < cols; ++i) columns[i] = static_cast<float>(i * 7 % cols);
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < cols; ++i) expected[row * cols + i] = x[row * cols + i * 7 % cols];
  }
  const int64_t stride = cols + 2;
  float* out = gpu.Untouched(rows * stride);
  gpu.Launch(Kernel::pick_rows, {.grid_x = 2, .grid_y = rows, .threads = 256},
             PickRowsArgs{.x = gpu.Put(x),
                          .out = out,
                          .stride = cols,
                          .out_stride = stride,
                          .cols = cols,
                          .count = rows,
                          .columns = gpu.Put(columns)});
  ExpectSame(gpu.Get(out, rows * stride), Strided(expected, cols, stride), "column");
}

// ---------------------------------------------------------------------------------------------------------
// Embedding

void ExpectEmbedded(const kernels::MatrixSpec& spec) {
  EmulatedGpu gpu;
  const RandomMatrix matrix(spec, 9);
  const DeviceWeights weights(gpu, matrix);
  const int first = 1000;
  // Tokens of other ranks, before and behind, leave their rows alone.
  const std::vector<int32_t> tokens = {
      first, first - 1, first + 36, first + static_cast<int32_t>(spec.rows), first + 17, 0};
  const auto count = static_cast<int32_t>(tokens.size());
  const int64_t stride = spec.cols + 1;
  std::vector<float> expected(count * spec.cols);
  for (int row = 0; row < count; ++row) {
    const int64_t token = tokens[row] - first;
    const absl::Span<float> to(expected.data() + row * spec.cols, spec.cols);
    if (token >= 0 && token < spec.rows) {
      matrix.packed.GetRow(token, to);
    } else {
      for (float& value : to) std::memcpy(&value, &EmulatedGpu::kUntouched, 4);
    }
  }
  float* out = gpu.Untouched(count * stride);
  gpu.Launch(Kernel::embed, {.grid_x = BlocksOf(spec.cols, 256), .grid_y = count, .threads = 256},
             EmbedArgs{.weights = weights.view,
                       .format = spec.format,
                       .group = spec.group,
                       .tokens = gpu.Put(tokens),
                       .first = first,
                       .cols = static_cast<int32_t>(spec.cols),
                       .out = out,
                       .stride = stride});
  ExpectSame(gpu.Get(out, count * stride), Strided(expected, spec.cols, stride), "row");
}

TEST(EmbedTest, TakesRowsOfEveryFormat) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16}) {
    SCOPED_TRACE(std::string(Name(format)));
    ExpectEmbedded({.rows = 37, .cols = 300, .format = format});
  }
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const int group : {16, 32, 64, 128}) {
      for (const bool has_offset : {false, true}) {
        for (const bool half_scales : {false, true}) {
          SCOPED_TRACE(absl::StrCat(std::string(Name(format)), " group ", group, has_offset ? " offset" : "",
                                    half_scales ? " half" : ""));
          ExpectEmbedded({.rows = 37,
                          .cols = 300,
                          .format = format,
                          .group = group,
                          .has_offset = has_offset,
                          .half_scales = half_scales});
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------
// Random weights of measurements

TEST(FillRandomTest, WordsDependOnTheirPlaceAloneAndAreOfTheirKind) {
  EmulatedGpu gpu, emulated(EmulatedGpu::kEmulated);
  const int64_t count = 1000;
  for (const auto kind : {FillRandomArgs::kBF16, FillRandomArgs::kF16, FillRandomArgs::kF32,
                          FillRandomArgs::kBytes, FillRandomArgs::kScales, FillRandomArgs::kHalfScales}) {
    auto* words = gpu.Untouched<uint32_t>(count);
    auto* same = gpu.Untouched<uint32_t>(count);
    auto* emulated_words = emulated.Untouched<uint32_t>(count);
    gpu.Launch(Kernel::fill_random, {.grid_x = 3, .threads = 64},
               FillRandomArgs{.words = words, .count = count, .seed = 5, .kind = kind});
    gpu.Launch(Kernel::fill_random, {.grid_x = 1, .threads = 256},
               FillRandomArgs{.words = same, .count = count, .seed = 5, .kind = kind});
    emulated.Launch(Kernel::fill_random, {.grid_x = 2, .threads = 32},
                    FillRandomArgs{.words = emulated_words, .count = count, .seed = 5, .kind = kind});
    const std::vector<uint32_t> values = gpu.Get(words, count);
    EXPECT_EQ(values, gpu.Get(same, count));
    EXPECT_EQ(values, emulated.Get(emulated_words, count));
    for (const uint32_t value : values) {
      for (const uint32_t half : {value & 0xffffu, value >> 16}) {
        const float bf16 = std::abs(F32FromBF16(static_cast<uint16_t>(half)));
        const float fp16 = F32FromF16(static_cast<uint16_t>(half));
        if (kind == FillRandomArgs::kBF16) {
          EXPECT_TRUE(bf16 >= 0x1p-9f && bf16 < 0x1p-4f) << bf16;
        }
        if (kind == FillRandomArgs::kF16) {
          EXPECT_TRUE(std::abs(fp16) >= 0x1p-9f && std::abs(fp16) < 0x1p-4f) << fp16;
        }
        if (kind == FillRandomArgs::kHalfScales) {
          EXPECT_TRUE(fp16 > 0x1p-12f && fp16 < 0x1p-10f) << fp16;
        }
      }
      const float fp32 = BitsFloat(value);
      if (kind == FillRandomArgs::kF32) {
        EXPECT_TRUE(std::abs(fp32) >= 0x1p-9f && std::abs(fp32) < 0x1p-4f) << fp32;
      }
      if (kind == FillRandomArgs::kScales) {
        EXPECT_TRUE(fp32 >= 0x1p-11f && fp32 < 0x1p-10f) << fp32;
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------
// Elementary functions: device_math.h promises three units in the last place.

// How many floats lie between, for finite values of one sign.
int64_t Distance(float a, float b) {
  const auto order = [](float x) {
    const auto bits = static_cast<int64_t>(Bits(x) & 0x7fffffffu);
    return Bits(x) >> 31 ? -bits : bits;
  };
  return std::abs(order(a) - order(b));
}

TEST(DeviceMathTest, ExpIsWithinThreeUnits) {
  for (double x = -87.33; x <= 88.72; x += 0.0137) {
    const auto at = static_cast<float>(x);
    EXPECT_LE(Distance(Exp(at), static_cast<float>(std::exp(static_cast<double>(at)))), 3) << at;
  }
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-88.0f), 0.0f);
  EXPECT_EQ(Exp(-INFINITY), 0.0f);
  EXPECT_EQ(Exp(89.0f), INFINITY);
  EXPECT_TRUE(std::isnan(Exp(NAN)));
}

TEST(DeviceMathTest, TanhIsWithinThreeUnits) {
  for (double x = -12; x <= 12; x += 0.00173) {
    const auto at = static_cast<float>(x);
    EXPECT_LE(Distance(Tanh(at), static_cast<float>(std::tanh(static_cast<double>(at)))), 3) << at;
  }
  EXPECT_EQ(Tanh(0.0f), 0.0f);
  EXPECT_EQ(Tanh(INFINITY), 1.0f);
  EXPECT_EQ(Tanh(-INFINITY), -1.0f);
  EXPECT_TRUE(std::isnan(Tanh(NAN)));
}

// ---------------------------------------------------------------------------------------------------------
// The largest of rows

TEST(LargestTest, IsWhatSortingGives) {
  for (const auto& [cols, count] : {std::pair{1, 1}, {100, 64}, {8192, 1}, {8193, 5}, {20000, 64}}) {
    for (const float spread : {1000.0f, 8.0f}) {  // the less, the more equals
      SCOPED_TRACE(absl::StrCat(count, " of ", cols, ", spread ", spread));
      TestRandom random(static_cast<uint64_t>(cols) + static_cast<uint64_t>(spread));
      constexpr int kRows = 3;
      std::vector<std::vector<float>> rows(kRows, std::vector<float>(cols));
      for (std::vector<float>& row : rows) {
        for (float& value : row) value = std::round(random.Between(-spread, spread));
        row[random.Below(cols)] = -INFINITY;
      }
      rows[1][random.Below(cols)] = std::nanf("");
      rows[2].assign(cols, -INFINITY);
      std::vector<float> all;
      for (const std::vector<float>& row : rows) all.insert(all.end(), row.begin(), row.end());
      const int chunks = BlocksOf(cols, kernels::kLargestChunk);
      EmulatedGpu gpu;
      auto* const out = gpu.Untouched<kernels::LargestValue>(2 * kRows * chunks * count);
      gpu.Launch(Kernel::largest,
                 {.grid_x = chunks,
                  .grid_y = kRows,
                  .threads = kLargestThreads,
                  .shared_bytes = kLargestSharedBytes},
                 LargestArgs{.x = gpu.Put(Strided(all, cols, cols + 3)),
                             .stride = cols + 3,
                             .cols = cols,
                             .count = count,
                             .out = out});
      const std::vector<kernels::LargestValue> seen = gpu.Get(out, int64_t{kRows} * chunks * count);
      for (int row = 0; row < kRows; ++row) {
        const std::vector<kernels::LargestValue> expected = kernels::SortedLargest(rows[row], count);
        for (size_t i = 0; i < expected.size(); ++i) {
          const kernels::LargestValue& it = seen[row * expected.size() + i];
          ASSERT_EQ(it.column, expected[i].column) << "row " << row << ", value " << i;
          if (it.column == kernels::kNotFinite) i += count - 1;  // the rest of the chunk
          if (it.column < 0) continue;
          ASSERT_EQ(it.value, expected[i].value) << "row " << row << ", value " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace bellwether::gpu
