#include <algorithm>
#include <limits>
#include <string>

#include "common/exact_math.h"
#include "kernels/kernel_level_test.h"

namespace bellwether::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kGap = 3;  // floats between rows

// Exponentials are within 2 units in the last place: a share of 4 u.
constexpr double kExpError = 4 * kRoundoff;

// Rows that start off any alignment, with a gap between them.
struct Rows {
  Rows(int64_t rows, int64_t cols) : rows(rows), cols(cols), data(1 + rows * (cols + kGap), -7.0f) {}
  Rows(int64_t rows, int64_t cols, uint32_t seed, float magnitude = 3) : Rows(rows, cols) {
    TestRandom random(seed);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < cols; ++i) at(r)[i] = magnitude * random.uniform();
    }
  }
  float* at(int64_t row) { return data.data() + 1 + row * (cols + kGap); }
  ConstRows in() { return {at(0), rows, cols + kGap}; }
  MutableRows out() { return {at(0), rows, cols + kGap}; }
  ConstRows in(int64_t row) { return {at(row), 1, cols + kGap}; }
  MutableRows out(int64_t row) { return {at(row), 1, cols + kGap}; }
  bool GapsUntouched() {
    bool untouched = data[0] == -7;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < kGap; ++i) untouched &= at(r)[cols + i] == -7;
    }
    return untouched;
  }
  int64_t rows, cols;
  std::vector<float> data;
};

std::vector<int64_t> Widths() {
  std::vector<int64_t> widths;
  for (int64_t cols = 1; cols <= 130; ++cols) widths.push_back(cols);
  widths.insert(widths.end(), {255, 512, 1000, 4099});
  return widths;
}

class RowsTest : public KernelLevelTest {
 protected:
  // `compute(in, out)` gives the same bits for all rows at once and for each alone, in place too, and keeps
  // off the gaps.
  template <typename Compute>
  void ExpectRowsAreIndependent(Rows& input, Compute compute) {
    Rows all(input.rows, input.cols), in_place = input;
    compute(input.in(), all.out());
    compute(in_place.in(), in_place.out());
    EXPECT_TRUE(SameBits(in_place.data, all.data)) << "in place";
    EXPECT_TRUE(all.GapsUntouched());
    for (int64_t r = 0; r < input.rows; ++r) {
      std::vector<float> copy(input.at(r), input.at(r) + input.cols), alone(input.cols);
      compute(ConstRows{copy.data(), 1, input.cols}, MutableRows{alone.data(), 1, input.cols});
      EXPECT_TRUE(SameBits(alone.data(), all.at(r), input.cols)) << "row " << r;
    }
  }
};
BW_INSTANTIATE_FOR_KERNEL_LEVELS(RowsTest);

// u = kRoundoff. The sum of n squares is off by a share of at most (n + 1) u, its root by half of that and a
// rounding; dividing by n, adding epsilon, dividing (or inverting and multiplying) and the weight take at
// most 6 more.
TEST_P(RowsTest, RmsNorm) {
  for (int64_t cols : Widths()) {
    SCOPED_TRACE(cols);
    Rows x(3, cols, 1);
    const std::vector<float> weight = TestRandom(2).floats(cols);
    const auto compute = [&](ConstRows in, MutableRows out) {
      kernels().rms_norm(in, weight.data(), cols, 1e-5f, out);
    };
    Rows y(3, cols);
    compute(x.in(), y.out());
    for (int64_t r = 0; r < 3; ++r) {
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) squares += double{x.at(r)[i]} * x.at(r)[i];
      const double root = Sqrt(squares / static_cast<double>(cols) + double{1e-5f});
      for (int64_t i = 0; i < cols; ++i) {
        const double expected = x.at(r)[i] / root * weight[i];
        const double share = (0.5 * static_cast<double>(cols) + 7) * kRoundoff;
        ASSERT_TRUE(Within(y.at(r)[i], expected, share * std::abs(expected))) << "column " << i;
      }
    }
    ExpectRowsAreIndependent(x, compute);
  }
}

// The mean is off by m = (n + 1) u mean|x|, so x - mean by d = m + u |x - mean|. The variance takes m^2 and a
// share of (n + 4) u, its root half of that; the quotient, weight and bias add a few roundings.
TEST_P(RowsTest, LayerNorm) {
  for (int64_t cols : Widths()) {
    SCOPED_TRACE(cols);
    Rows x(3, cols, 3);
    for (int64_t i = 0; i < cols; ++i) x.at(1)[i] += 50;  // a mean far from zero
    TestRandom random(4);
    const std::vector<float> weight = random.floats(cols), bias = random.floats(cols);
    const auto compute = [&](ConstRows in, MutableRows out) {
      kernels().layer_norm(in, weight.data(), bias.data(), cols, 1e-5f, out);
    };
    Rows y(3, cols);
    compute(x.in(), y.out());
    const auto n = static_cast<double>(cols);
    for (int64_t r = 0; r < 3; ++r) {
      double mean = 0, magnitude = 0, variance = 0;
      for (int64_t i = 0; i < cols; ++i) mean += x.at(r)[i] / n, magnitude += std::abs(x.at(r)[i]) / n;
      for (int64_t i = 0; i < cols; ++i) variance += (x.at(r)[i] - mean) * (x.at(r)[i] - mean) / n;
      const double sigma2 = variance + double{1e-5f}, sigma = Sqrt(sigma2);
      const double mean_error = (n + 1) * kRoundoff * magnitude;
      const double share = (0.5 * n + 10) * kRoundoff + mean_error * mean_error / sigma2;
      for (int64_t i = 0; i < cols; ++i) {
        const double scaled = (x.at(r)[i] - mean) / sigma * weight[i];
        const double tolerance = std::abs(scaled) * share + mean_error / sigma * std::abs(weight[i]) +
                                 2 * kRoundoff * (std::abs(scaled) + std::abs(bias[i]));
        ASSERT_TRUE(Within(y.at(r)[i], scaled + bias[i], tolerance)) << "row " << r << " column " << i;
      }
    }
    ExpectRowsAreIndependent(x, compute);
  }
}

TEST_P(RowsTest, NormsOfZerosAreFinite) {
  for (int64_t cols : {1, 7, 64}) {
    const std::vector<float> x(cols), weight(cols, 1.0f), bias(cols, 0.5f);
    std::vector<float> y(cols, kNaN);
    kernels().rms_norm({x.data(), 1, cols}, weight.data(), cols, 1e-6f, {y.data(), 1, cols});
    EXPECT_EQ(y, x);
    kernels().layer_norm({x.data(), 1, cols}, weight.data(), bias.data(), cols, 1e-6f, {y.data(), 1, cols});
    EXPECT_EQ(y, bias);
  }
}

// Two products and a sum: at most 3 u of |a cos| + |b sin|.
TEST_P(RowsTest, Rope) {
  for (int head_dim = 2; head_dim <= 132; head_dim += 2) {
    SCOPED_TRACE(head_dim);
    const int heads = 3, half = head_dim / 2;
    const Rows x(1, heads * head_dim, 5);
    TestRandom random(6);
    const std::vector<float> cosines = random.floats(half), sines = random.floats(half);
    Rows y = x;
    kernels().rope(y.at(0), heads, head_dim, cosines.data(), sines.data());
    EXPECT_TRUE(y.GapsUntouched());
    for (int head = 0; head < heads; ++head) {
      const float* before = x.data.data() + 1 + head * head_dim;
      const float* after = y.at(0) + head * head_dim;
      for (int i = 0; i < half; ++i) {
        const double a = before[i], b = before[i + half], c = cosines[i], s = sines[i];
        const double tolerance = 3 * kRoundoff;
        ASSERT_TRUE(Within(after[i], a * c - b * s, tolerance * (std::abs(a * c) + std::abs(b * s))));
        ASSERT_TRUE(Within(after[i + half], b * c + a * s, tolerance * (std::abs(b * c) + std::abs(a * s))));
      }
      // A head is the same alone.
      std::vector<float> alone(before, before + head_dim);
      kernels().rope(alone.data(), 1, head_dim, cosines.data(), sines.data());
      ASSERT_TRUE(SameBits(alone.data(), after, head_dim));
    }
  }
}

// The exponential's share and five roundings.
TEST_P(RowsTest, SiluMultiply) {
  for (float magnitude : {1.0f, 20.0f, 120.0f}) {
    for (int64_t cols : Widths()) {
      Rows gate(2, cols, 7, magnitude), up(2, cols, 8);
      Rows y = gate;
      kernels().silu_multiply(y.out(), up.in(), cols);
      EXPECT_TRUE(y.GapsUntouched());
      for (int64_t r = 0; r < 2; ++r) {
        for (int64_t i = 0; i < cols; ++i) {
          const double g = gate.at(r)[i];
          const double expected = g / (1 + Exp(-g)) * up.at(r)[i];
          // Far below zero e^-g overflows fp32 and the result, below 1e-36, becomes zero.
          const double tolerance =
              (kExpError + 5 * kRoundoff) * std::abs(expected) + (g < -80 ? 1e-33 : 0x1p-120);
          ASSERT_TRUE(Within(y.at(r)[i], expected, tolerance)) << "gate " << g << " of " << cols;
        }
        std::vector<float> alone(gate.at(r), gate.at(r) + cols);
        kernels().silu_multiply({alone.data(), 1, cols}, up.in(r), cols);
        ASSERT_TRUE(SameBits(alone.data(), y.at(r), cols)) << "row " << r << " of " << cols;
      }
    }
  }
}

// tanh's argument t is off by a share of 5 u; d tanh/dt * t is at most 0.45, and tanh itself, 1 + tanh, the
// halving and the product take a few roundings of numbers up to 2: 8 u of |x| covers them.
TEST_P(RowsTest, Gelu) {
  for (float magnitude : {1.0f, 6.0f, 50.0f}) {
    for (int64_t cols : Widths()) {
      Rows x(2, cols, 9, magnitude);
      Rows y = x;
      kernels().gelu(y.out(), cols);
      EXPECT_TRUE(y.GapsUntouched());
      for (int64_t r = 0; r < 2; ++r) {
        for (int64_t i = 0; i < cols; ++i) {
          const double v = x.at(r)[i];
          const double expected = v / 2 * (1 + Tanh(0.7978845608028654 * v * (1 + 0.044715 * v * v)));
          ASSERT_TRUE(Within(y.at(r)[i], expected, (8 * kRoundoff + kExpError) * std::abs(v))) << "x " << v;
        }
        std::vector<float> alone(x.at(r), x.at(r) + cols);
        kernels().gelu({alone.data(), 1, cols}, cols);
        ASSERT_TRUE(SameBits(alone.data(), y.at(r), cols)) << "row " << r << " of " << cols;
      }
    }
  }
}

TEST_P(RowsTest, ActivationsAtTheirEnds) {
  const std::vector<float> x = {0.0f,      -0.0f,   1e-30f, -1e-30f, 100.0f, 1e20f,
                                kInfinity, -100.0f, -1e20f, 3e38f,   -3e38f};
  const auto cols = static_cast<int64_t>(x.size());
  const std::vector<float> up(cols, 1.0f);
  for (bool silu : {true, false}) {
    std::vector<float> y = x;
    if (silu) kernels().silu_multiply({y.data(), 1, cols}, {up.data(), 1, cols}, cols);
    if (!silu) kernels().gelu({y.data(), 1, cols}, cols);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], 0);
    EXPECT_EQ(y[2], 0.5e-30f);
    EXPECT_EQ(y[3], -0.5e-30f);
    for (int i : {4, 5, 6, 9}) EXPECT_EQ(y[i], x[i]);
    for (int i : {7, 8, 10}) EXPECT_TRUE(y[i] <= 0 && y[i] > -1e-30f) << x[i] << " gives " << y[i];
  }
}

TEST_P(RowsTest, NaNStaysInItsRow) {
  constexpr int64_t kCols = 37;
  const std::vector<float> weight(kCols, 1.5f), bias(kCols, 0.5f);
  Rows clean(4, kCols, 10), up(4, kCols, 11);
  Rows dirty = clean;
  dirty.at(1)[36] = kNaN;
  dirty.at(2)[3] = kInfinity;
  const auto expect_isolated = [&](const char* what, bool whole_row, auto compute) {
    SCOPED_TRACE(what);
    Rows a = clean, b = dirty;
    compute(a);
    compute(b);
    for (int64_t r : {0, 3}) EXPECT_TRUE(SameBits(a.at(r), b.at(r), kCols)) << "row " << r;
    EXPECT_TRUE(std::isnan(b.at(1)[36]));
    EXPECT_FALSE(std::isfinite(b.at(2)[3]));
    for (int64_t i = 0; i < kCols; ++i) {
      if (whole_row) {
        EXPECT_TRUE(std::isnan(b.at(1)[i])) << "column " << i;
      } else if (i != 36) {
        EXPECT_TRUE(SameBits(a.at(1) + i, b.at(1) + i, 1)) << "column " << i;
      }
    }
  };
  expect_isolated("rms_norm", true,
                  [&](Rows& x) { kernels().rms_norm(x.in(), weight.data(), kCols, 1e-5f, x.out()); });
  expect_isolated("layer_norm", true, [&](Rows& x) {
    kernels().layer_norm(x.in(), weight.data(), bias.data(), kCols, 1e-5f, x.out());
  });
  expect_isolated("silu_multiply", false, [&](Rows& x) { kernels().silu_multiply(x.out(), up.in(), kCols); });
  expect_isolated("gelu", false, [&](Rows& x) { kernels().gelu(x.out(), kCols); });
  expect_isolated("add_bias", false, [&](Rows& x) { kernels().add_bias(x.out(), bias.data(), kCols); });
}

TEST_P(RowsTest, SumsAreRoundedOnce) {
  for (int64_t cols : Widths()) {
    Rows a(3, cols, 12), b(3, cols, 13);
    Rows y = a;
    kernels().add_bias(y.out(), b.at(0), cols);
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t i = 0; i < cols; ++i) ASSERT_EQ(y.at(r)[i], a.at(r)[i] + b.at(0)[i]);
    }
    EXPECT_TRUE(y.GapsUntouched());
    std::vector<float> sum(cols + 1, -7.0f);
    kernels().add(a.at(1), b.at(1), cols, sum.data());
    for (int64_t i = 0; i < cols; ++i) ASSERT_EQ(sum[i], a.at(1)[i] + b.at(1)[i]);
    EXPECT_EQ(sum[cols], -7);
    // Over either operand.
    Rows left = a, right = b;
    kernels().add(left.at(1), b.at(1), cols, left.at(1));
    kernels().add(a.at(1), right.at(1), cols, right.at(1));
    EXPECT_TRUE(SameBits(left.at(1), sum.data(), cols) && SameBits(right.at(1), sum.data(), cols));
    EXPECT_TRUE(left.GapsUntouched() && right.GapsUntouched());
  }
}

}  // namespace
}  // namespace bellwether::kernels
