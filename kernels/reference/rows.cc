#include "common/exact_math.h"
#include "kernels/reference/reference.h"

namespace bellwether::kernels::reference {
namespace {
float ExpF32(float x) { return static_cast<float>(Exp(x)); }
}  // namespace

void RmsNorm(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    float sum = 0;
    for (int64_t i = 0; i < cols; ++i) sum += x.row(r)[i] * x.row(r)[i];
    const float root = Sqrt(sum / static_cast<float>(cols) + epsilon);
    for (int64_t i = 0; i < cols; ++i) out.row(r)[i] = x.row(r)[i] / root * weight[i];
  }
}

void LayerNorm(ConstRows x, const float* weight, const float* bias, int64_t cols, float epsilon,
               MutableRows out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    float sum = 0, squares = 0;
    for (int64_t i = 0; i < cols; ++i) sum += x.row(r)[i];
    const float mean = sum / static_cast<float>(cols);
    for (int64_t i = 0; i < cols; ++i) squares += (x.row(r)[i] - mean) * (x.row(r)[i] - mean);
    const float root = Sqrt(squares / static_cast<float>(cols) + epsilon);
    for (int64_t i = 0; i < cols; ++i) out.row(r)[i] = (x.row(r)[i] - mean) / root * weight[i] + bias[i];
  }
}

void Rope(float* row, int heads, int head_dim, const float* cosines, const float* sines) {
  const int half = head_dim / 2;
  for (int head = 0; head < heads; ++head) {
    float* first = row + static_cast<int64_t>(head) * head_dim;
    float* second = first + half;
    for (int i = 0; i < half; ++i) {
      const float a = first[i], b = second[i];
      first[i] = a * cosines[i] - b * sines[i];
      second[i] = b * cosines[i] + a * sines[i];
    }
  }
}

void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) {
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const float x = gate.row(r)[i];
      gate.row(r)[i] = x / (1.0f + ExpF32(-x)) * up.row(r)[i];
    }
  }
}

void Gelu(MutableRows x, int64_t cols) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const float v = x.row(r)[i];
      const float tanh = static_cast<float>(Tanh(0.79788456f * v * (1.0f + 0.044715f * v * v)));
      x.row(r)[i] = 0.5f * v * (1.0f + tanh);
    }
  }
}

void AddBias(MutableRows x, const float* bias, int64_t cols) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) x.row(r)[i] += bias[i];
  }
}

void Add(const float* a, const float* b, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

}  // namespace bellwether::kernels::reference
