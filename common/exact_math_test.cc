#include "common/exact_math.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "gtest/gtest.h"

// libm in long double (64-bit mantissa) is the oracle here, and only here.

namespace bellwether {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// |value - expected| in units in the last place of expected.
double UlpError(double value, long double expected) {
  const double rounded = static_cast<double>(expected);
  if (value == rounded) return 0.0;
  const double magnitude = std::fabs(rounded);
  const double ulp = std::nextafter(magnitude, kInfinity) - magnitude;
  return static_cast<double>(std::fabs(static_cast<long double>(value) - expected) / ulp);
}

template <typename Function, typename Oracle>
void ExpectClose(const char* name, Function function, Oracle oracle, double low, double high) {
  std::mt19937_64 random(20240601);
  std::uniform_real_distribution<double> uniform(low, high);
  double worst = 0.0;
  double worst_at = 0.0;
  for (int i = 0; i < 100000; ++i) {
    const double x = uniform(random);
    const double error = UlpError(function(x), oracle(static_cast<long double>(x)));
    if (!(error <= worst)) {
      worst = error;
      worst_at = x;
    }
  }
  EXPECT_LE(worst, 2.0) << name << " is worst at " << worst_at;
}

TEST(ExactMathTest, ExpIsWithinTwoUlp) {
  auto oracle = [](long double x) { return expl(x); };
  ExpectClose("Exp", Exp, oracle, -708.0, 709.0);
  ExpectClose("Exp", Exp, oracle, -1.0, 1.0);
  ExpectClose("Exp", Exp, oracle, -1e-3, 1e-3);
  EXPECT_EQ(Exp(0.0), 1.0);
  EXPECT_EQ(Exp(-kInfinity), 0.0);
  EXPECT_EQ(Exp(-800.0), 0.0);
  EXPECT_EQ(Exp(710.5), kInfinity);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Exp(std::nan(""))));
  // Subnormal results are rounded twice, which costs at most one more unit of the smallest number.
  EXPECT_NEAR(Exp(-740.0), std::exp(-740.0), 2 * std::numeric_limits<double>::denorm_min());
}

TEST(ExactMathTest, LogIsWithinTwoUlp) {
  auto oracle = [](long double x) { return logl(x); };
  ExpectClose("Log", Log, oracle, 1e-300, 1e-290);
  ExpectClose("Log", Log, oracle, 0.01, 3.0);
  ExpectClose("Log", Log, oracle, 0.999, 1.001);
  ExpectClose("Log", Log, oracle, 1.0, 1e9);
  EXPECT_EQ(Log(1.0), 0.0);
  EXPECT_EQ(Log(0.0), -kInfinity);
  EXPECT_EQ(Log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Log(-1.0)));
  const double smallest = std::numeric_limits<double>::denorm_min();
  EXPECT_LE(UlpError(Log(smallest), logl(smallest)), 2.0);
}

TEST(ExactMathTest, PowIsWithinTwoUlp) {
  // The bases and exponents of rotary embeddings and of ALiBi slopes, then wider ones.
  for (double base : {10000.0, 500000.0, 1e6, 2.0, 0.5, 1.7, 1e-9, 3.0e38}) {
    auto function = [base](double x) { return Pow(base, x); };
    auto oracle = [base](long double x) { return powl(base, x); };
    ExpectClose("Pow", function, oracle, -1.0, 1.0);
    ExpectClose("Pow", function, oracle, -7.5, 7.5);
  }
  auto of_near_one = [](double x) { return Pow(x, 5000.0); };
  ExpectClose(
      "Pow", of_near_one, [](long double x) { return powl(x, 5000.0L); }, 0.9, 1.1);
  for (int n = -10; n <= 10; ++n) EXPECT_EQ(Pow(2.0, n), std::ldexp(1.0, n));
  EXPECT_EQ(Pow(7.0, 0.0), 1.0);
  EXPECT_EQ(Pow(0.0, 2.0), 0.0);
  EXPECT_EQ(Pow(0.0, -2.0), kInfinity);
  EXPECT_EQ(Pow(10.0, 400.0), kInfinity);
  EXPECT_EQ(Pow(10.0, -400.0), 0.0);
  EXPECT_TRUE(std::isnan(Pow(-2.0, 2.0)));
}

TEST(ExactMathTest, SinAndCosAreWithinTwoUlp) {
  auto sin_oracle = [](long double x) { return sinl(x); };
  auto cos_oracle = [](long double x) { return cosl(x); };
  for (double range : {1e-3, 0.8, 7.0, 1000.0, 1e6, 9.9e6}) {
    ExpectClose("Sin", Sin, sin_oracle, -range, range);
    ExpectClose("Cos", Cos, cos_oracle, -range, range);
  }
  EXPECT_EQ(Sin(0.0), 0.0);
  EXPECT_EQ(Cos(0.0), 1.0);
  EXPECT_TRUE(std::isnan(Sin(1e8)));
  EXPECT_TRUE(std::isnan(Cos(-kInfinity)));
}

TEST(ExactMathTest, SinAndCosNearMultiplesOfHalfPi) {
  // The doubles next to k pi/2 lose most of their bits in the reduction; whole positions come close to some.
  for (int64_t k = 1; k < 6000000; k += 977) {
    const double x = static_cast<double>(k * 1.5707963267948966192313216916398L);
    ASSERT_LE(UlpError(Sin(x), sinl(x)), 2.0) << k;
    ASSERT_LE(UlpError(Cos(x), cosl(x)), 2.0) << k;
  }
  for (int64_t position = 0; position < 300000; ++position) {
    const double x = static_cast<double>(position);
    ASSERT_LE(UlpError(Sin(x), sinl(x)), 2.0) << position;
    ASSERT_LE(UlpError(Cos(x), cosl(x)), 2.0) << position;
  }
}

TEST(ExactMathTest, TanhIsWithinTwoUlp) {
  auto oracle = [](long double x) { return tanhl(x); };
  for (double range : {1e-9, 1e-3, 0.3, 0.6, 3.0, 25.0}) ExpectClose("Tanh", Tanh, oracle, -range, range);
  EXPECT_EQ(Tanh(0.0), 0.0);
  EXPECT_EQ(Tanh(100.0), 1.0);
  EXPECT_EQ(Tanh(-kInfinity), -1.0);
  EXPECT_TRUE(std::isnan(Tanh(std::nan(""))));
}

// A changed bit here means that answers of two builds differ: change these values only on purpose.
TEST(ExactMathTest, BitsArePinned) {
  uint64_t hash = 1469598103934665603ull;
  auto mix = [&hash](double value) { hash = (hash ^ std::bit_cast<uint64_t>(value)) * 1099511628211ull; };
  for (int i = 1; i < 20000; ++i) {
    const double x = i * 0.0137;
    mix(Exp(x - 137.0));
    mix(Log(x));
    mix(Pow(x, 0.731));
    mix(Sin(x * 100.0));
    mix(Cos(x * 100.0));
    mix(Tanh(x - 13.7));
    mix(Sqrt(x));
  }
  EXPECT_EQ(hash, 0x6a334ca2ad283730ull);
}

}  // namespace
}  // namespace bellwether
