#include "common/exact_math.h"

#include <bit>
#include <cstdint>
#include <limits>

namespace bellwether {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ln 2 in two parts; the high one has 38 bits, so that k * kLn2High is exact for every exponent k.
constexpr double kLn2High = 0x1.62e42fefa0000p-1;
constexpr double kLn2Low = 0x1.cf79abc9e3b3ap-40;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kSqrt2 = 0x1.6a09e667f3bcdp+0;

// A number kept as the unevaluated sum high + low, with |low| at most half a unit in the last place of high.
struct DoubleDouble {
  double high;
  double low;
};

DoubleDouble TwoSum(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// Dekker's product: each factor is split in halves of 26 bits, whose products are exact.
DoubleDouble TwoProduct(double a, double b) {
  constexpr double kSplit = 134217729.0;  // 2^27 + 1
  const double a_scaled = kSplit * a;
  const double a_high = a_scaled - (a_scaled - a);
  const double a_low = a - a_high;
  const double b_scaled = kSplit * b;
  const double b_high = b_scaled - (b_scaled - b);
  const double b_low = b - b_high;
  const double product = a * b;
  const double error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  return {product, error};
}

DoubleDouble Add(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble high = TwoSum(a.high, b.high);
  return TwoSum(high.high, high.low + (a.low + b.low));
}

DoubleDouble Multiply(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble high = TwoProduct(a.high, b.high);
  return TwoSum(high.high, high.low + (a.high * b.low + a.low * b.high));
}

DoubleDouble Divide(DoubleDouble a, DoubleDouble b) {
  const double quotient = a.high / b.high;
  const DoubleDouble back = Multiply({quotient, 0.0}, b);
  const double rest = ((a.high - back.high) - back.low) + a.low;
  return TwoSum(quotient, rest / b.high);
}

// To the nearest integer, halves to even, for |x| < 2^51: adding 1.5 * 2^52 leaves no bits below the point.
double RoundToInteger(double x) {
  constexpr double kShift = 6755399441055744.0;
  return (x + kShift) - kShift;
}

double PowerOfTwo(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// x * 2^k, in two factors because 2^k alone may be outside the range of normal numbers.
double Scale(double x, int k) {
  const int half = k / 2;
  return x * PowerOfTwo(half) * PowerOfTwo(k - half);
}

// e^(x + low), |low| tiny against x. x = k ln2 + r with |r| <= ln2 / 2; then the Taylor series of e^r.
double ExpOfSum(double x, double low) {
  if (x != x) return x;
  if (x > 710.0) return kInfinity;
  if (x < -746.0) return 0.0;
  const double k = RoundToInteger(x * kLog2E);
  const double high = x - k * kLn2High;  // exact
  const double correction = k * kLn2Low - low;
  const double r = high - correction;
  constexpr double kInverseFactorial[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                          1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                          1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
  double series = 0.0;
  for (double coefficient : kInverseFactorial) series = series * r + coefficient;
  // The small terms first: 1 + (high + (r^2 series - correction)) rounds once at the end.
  return Scale(1.0 + (high + (r * r * series - correction)), static_cast<int>(k));
}

// x = 2^exponent * mantissa with the mantissa in [sqrt(1/2), sqrt(2)); x is positive and finite.
struct Normalized {
  double mantissa;
  int exponent;
};

Normalized Normalize(double x) {
  int exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= 0x1p54;
    exponent = -54;
  }
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
  if (mantissa > kSqrt2) {
    mantissa *= 0.5;
    ++exponent;
  }
  return {mantissa, exponent};
}

// ln x for positive finite x, to about 100 bits: k ln2 + 2 atanh(s), s = (m - 1) / (m + 1).
DoubleDouble PreciseLog(double x) {
  const auto [mantissa, exponent] = Normalize(x);
  const DoubleDouble s = Divide({mantissa - 1.0, 0.0}, TwoSum(mantissa, 1.0));
  const DoubleDouble s_squared = Multiply(s, s);
  DoubleDouble series = {0.0, 0.0};
  for (int n = 41; n >= 1; n -= 2) {  // sum of s^(n-1) / n; |s| <= 0.172, so 0.172^42 is below 2^-106
    series = Add(Multiply(series, s_squared), Divide({1.0, 0.0}, {static_cast<double>(n), 0.0}));
  }
  const DoubleDouble atanh = Multiply(s, series);
  constexpr DoubleDouble kLn2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
  const DoubleDouble exponent_part = Multiply({static_cast<double>(exponent), 0.0}, kLn2);
  return Add(exponent_part, {2.0 * atanh.high, 2.0 * atanh.low});
}

// x - quadrant * pi/2 as a double-double in about [-pi/4, pi/4].
struct ReducedAngle {
  DoubleDouble rest;
  int quadrant;  // 0..3
};

ReducedAngle ReduceAngle(double x) {
  // pi/2 in parts of 30, 30, 30 and 53 bits: a multiple below 2^23 of the first three is exact.
  constexpr double kHalfPi[] = {0x1.921fb54000000p+0, 0x1.10b4611800000p-30, 0x1.313198a000000p-61,
                                0x1.701b839a25205p-92};
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  const double multiple = RoundToInteger(x * kTwoOverPi);
  DoubleDouble rest = {x, 0.0};
  for (double part : kHalfPi) rest = Add(rest, {-multiple * part, 0.0});
  return {rest, static_cast<int>(static_cast<int64_t>(multiple) & 3)};
}

// sin(x.high + x.low) for |x| <= about pi/4.
double SinKernel(DoubleDouble x) {
  constexpr double kCoefficients[] = {
      1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
      1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
  const double square = x.high * x.high;
  double series = 0.0;
  for (double coefficient : kCoefficients) series = series * square + coefficient;
  // sin(high + low) = sin(high) + low cos(high); two terms of the cosine are enough for so small a factor.
  return x.high + (x.high * square * series + x.low * (1.0 - 0.5 * square));
}

// cos(x.high + x.low) for |x| <= about pi/4.
double CosKernel(DoubleDouble x) {
  constexpr double kCoefficients[] = {
      1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
      1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
  const double square = x.high * x.high;
  double series = 0.0;
  for (double coefficient : kCoefficients) series = series * square + coefficient;
  const double half = 0.5 * square;
  const double lead = 1.0 - half;  // what this rounding loses comes back below
  return lead + (((1.0 - lead) - half) + (square * square * series - x.high * x.low));
}

bool AngleInRange(double x) { return x >= -1e7 && x <= 1e7; }

// sinh and cosh by their series, for |x| < 0.55.
double SmallTanh(double x) {
  const double square = x * x;
  double sinh_series = 0.0;
  double cosh_series = 0.0;
  constexpr double kSinh[] = {1.0 / 1307674368000.0, 1.0 / 6227020800.0, 1.0 / 39916800.0, 1.0 / 362880.0,
                              1.0 / 5040.0,          1.0 / 120.0,        1.0 / 6.0};
  constexpr double kCosh[] = {1.0 / 20922789888000.0, 1.0 / 87178291200.0, 1.0 / 479001600.0, 1.0 / 3628800.0,
                              1.0 / 40320.0,          1.0 / 720.0,         1.0 / 24.0,        0.5};
  for (double coefficient : kSinh) sinh_series = sinh_series * square + coefficient;
  for (double coefficient : kCosh) cosh_series = cosh_series * square + coefficient;
  const double sinh_part = square * sinh_series;  // sinh(x) / x - 1
  const double cosh_part = square * cosh_series;  // cosh(x) - 1
  return x + x * ((sinh_part - cosh_part) / (1.0 + cosh_part));
}

}  // namespace

double Exp(double x) { return ExpOfSum(x, 0.0); }

double Log(double x) {
  if (x != x) return x;
  if (x == 0.0) return -kInfinity;
  if (x < 0.0) return kNaN;
  if (x == kInfinity) return x;
  const auto [mantissa, exponent] = Normalize(x);
  // ln(1 + f) = f - (f^2/2 - s (f^2/2 + R)), s = f / (2 + f), R = 2 s^2/3 + 2 s^4/5 + ...
  const double f = mantissa - 1.0;
  const double s = f / (2.0 + f);
  const double square = s * s;
  double series = 0.0;
  for (int n = 23; n >= 3; n -= 2) series = series * square + 2.0 / n;
  const double half = 0.5 * f * f;
  const double k = exponent;
  return k * kLn2High - ((half - (s * (half + square * series) + k * kLn2Low)) - f);
}

double Pow(double base, double exponent) {
  if (exponent == 0.0 || base == 1.0) return 1.0;
  if (base != base || exponent != exponent || base < 0.0) return kNaN;
  if (base == 0.0) return exponent > 0.0 ? 0.0 : kInfinity;
  if (base == kInfinity) return exponent > 0.0 ? kInfinity : 0.0;
  if (exponent == kInfinity) return base > 1.0 ? kInfinity : 0.0;
  if (exponent == -kInfinity) return base > 1.0 ? 0.0 : kInfinity;
  const DoubleDouble log = PreciseLog(base);
  // Far outside the range of results; also keeps the exact product below from overflowing.
  const double rough = exponent * log.high;
  if (rough > 1000.0) return kInfinity;
  if (rough < -1000.0) return 0.0;
  if (exponent > 0x1p900 || exponent < -0x1p900) return 1.0 + rough;
  const DoubleDouble power = Multiply(log, {exponent, 0.0});
  return ExpOfSum(power.high, power.low);
}

double Sin(double x) {
  if (!AngleInRange(x)) return kNaN;
  if (x == 0.0) return x;
  const auto [rest, quadrant] = ReduceAngle(x);
  const double value = (quadrant & 1) != 0 ? CosKernel(rest) : SinKernel(rest);
  return (quadrant & 2) != 0 ? -value : value;
}

double Cos(double x) {
  if (!AngleInRange(x)) return kNaN;
  const auto [rest, quadrant] = ReduceAngle(x);
  const double value = (quadrant & 1) != 0 ? SinKernel(rest) : CosKernel(rest);
  return quadrant == 1 || quadrant == 2 ? -value : value;
}

double Tanh(double x) {
  if (x != x) return x;
  const double magnitude = x < 0.0 ? -x : x;
  if (magnitude < 0.55) return SmallTanh(x);
  const double value = magnitude > 22.0 ? 1.0 : 1.0 - 2.0 / (Exp(2.0 * magnitude) + 1.0);
  return x < 0.0 ? -value : value;
}

}  // namespace bellwether
