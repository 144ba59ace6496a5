#include "common/exact_math.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/portable_vector.h"

namespace bellwether::kernels::portable {
namespace {

// out[i] = function(a[i], b[i])
template <typename Function>
void Transform(const float* a, const float* b, int64_t count, float* out, Function function) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store4(function(Load4(a + i), Load4(b + i)), out + i);
  if (i == count) return;
  StorePart(function(LoadPart(a + i, count - i), LoadPart(b + i, count - i)), out + i, count - i);
}

// Sum of function(x[i]): sixteen running sums, so that the additions do not wait for each other.
template <typename Function>
float Sum(const float* x, int64_t count, Function function) {
  F4 sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v) sums[v] += function(Load4(x + i + v * kLanes));
  }
  for (int v = 0; i < count; ++v, i += kLanes) {
    const int64_t rest = count - i;
    const F4 part = rest >= kLanes ? function(Load4(x + i)) : function(LoadPart(x + i, rest));
    for (int lane = 0; lane < kLanes && lane < rest; ++lane) sums[v][lane] += part[lane];
  }
  return SumOfLanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

void RmsNorm(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const float mean = Sum(x.row(r), cols, [](F4 v) { return v * v; }) / static_cast<float>(cols);
    const F4 inverse = Broadcast(1.0f / Sqrt(mean + epsilon));
    Transform(x.row(r), weight, cols, out.row(r), [=](F4 v, F4 w) { return v * inverse * w; });
  }
}

void LayerNorm(ConstRows x, const float* weight, const float* bias, int64_t cols, float epsilon,
               MutableRows out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const F4 mean = Broadcast(Sum(x.row(r), cols, [](F4 v) { return v; }) / static_cast<float>(cols));
    const float variance =
        Sum(x.row(r), cols, [=](F4 v) { return (v - mean) * (v - mean); }) / static_cast<float>(cols);
    const F4 inverse = Broadcast(1.0f / Sqrt(variance + epsilon));
    Transform(x.row(r), weight, cols, out.row(r), [=](F4 v, F4 w) { return (v - mean) * inverse * w; });
    Add(out.row(r), bias, cols, out.row(r));
  }
}

void Rope(float* row, int heads, int head_dim, const float* cosines, const float* sines) {
  const int half = head_dim / 2;
  for (int head = 0; head < heads; ++head) {
    float* first = row + static_cast<int64_t>(head) * head_dim;
    float* second = first + half;
    int i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const F4 a = Load4(first + i), b = Load4(second + i), c = Load4(cosines + i), s = Load4(sines + i);
      Store4(a * c - b * s, first + i);
      Store4(b * c + a * s, second + i);
    }
    for (; i < half; ++i) {
      const float a = first[i], b = second[i];
      first[i] = a * cosines[i] - b * sines[i];
      second[i] = b * cosines[i] + a * sines[i];
    }
  }
}

void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) {
  for (int64_t r = 0; r < gate.rows; ++r) {
    Transform(gate.row(r), up.row(r), cols, gate.row(r),
              [](F4 g, F4 u) { return g / (Broadcast(1.0f) + Exp4(-g)) * u; });
  }
}

void Gelu(MutableRows x, int64_t cols) {
  // (1 + tanh(u)) / 2 = 1 / (1 + e^-2u), which does not cancel where u is far below zero.
  const auto gelu = [](F4 v, F4) {
    const F4 cubic = v * Broadcast(0.79788456f) * (Broadcast(1.0f) + Broadcast(0.044715f) * v * v);
    return v / (Broadcast(1.0f) + Exp4(Broadcast(-2.0f) * cubic));
  };
  for (int64_t r = 0; r < x.rows; ++r) Transform(x.row(r), x.row(r), cols, x.row(r), gelu);
}

void AddBias(MutableRows x, const float* bias, int64_t cols) {
  for (int64_t r = 0; r < x.rows; ++r) Add(x.row(r), bias, cols, x.row(r));
}

void Add(const float* a, const float* b, int64_t count, float* out) {
  Transform(a, b, count, out, [](F4 x, F4 y) { return x + y; });
}

}  // namespace bellwether::kernels::portable
