#pragma once

// Elementary functions whose results are the same bits on every machine. libm's are not: it picks its code by
// the processor it finds. Ours are plain IEEE double arithmetic (add, multiply, divide, square root) in one
// fixed order; the build forbids contraction. Errors are at most 2 units in the last place within the stated
// ranges. All functions are pure and may be called from any thread.

namespace bellwether {

// e^x for every x: 0 below about -745.1, infinity above about 709.8, NaN for NaN.
double Exp(double x);

// Natural logarithm: -infinity at 0, NaN below it.
double Log(double x);

// base^exponent for base >= 0; NaN for a negative base. Pow(x, 0) is 1.
double Pow(double base, double exponent);

// x in radians, |x| <= 1e7; NaN beyond (no model asks for it, and accuracy would be lost).
double Sin(double x);
double Cos(double x);

double Tanh(double x);

// IEEE requires the square root to be correctly rounded, so the hardware's is exact already.
inline double Sqrt(double x) { return __builtin_sqrt(x); }
inline float Sqrt(float x) { return __builtin_sqrtf(x); }

}  // namespace bellwether
