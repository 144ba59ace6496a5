#include <algorithm>
#include <limits>

#include "common/check.h"
#include "common/dtype.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {
namespace {

constexpr float kHalfMax = 65504;

bool IsFinite(float value) { return value - value == 0; }

// To the nearest integer, ties to even, for |value| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
float RoundToEven(float value) {
  constexpr float kShift = 12582912.0f;
  return (value + kShift) - kShift;
}

// Writes the group's q and returns its scale. int8 uses -127 ... 127; int4 maps the value of largest
// magnitude to -8, which the sign of the scale makes possible, so that all sixteen values serve.
float QuantizeGroup(absl::Span<const float> values, WeightFormat format, int8_t* q) {
  float largest = 0, magnitude = 0;
  bool finite = true;
  for (float value : values) {
    finite &= IsFinite(value);
    const float here = value < 0 ? -value : value;
    if (here > magnitude) {
      magnitude = here;
      largest = value;
    }
  }
  if (!finite) {
    std::fill(q, q + values.size(), int8_t{0});
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float exact = format == WeightFormat::kInt8 ? magnitude / 127.0f : largest / -8.0f;
  const float scale = F32FromF16(F16FromF32(std::clamp(exact, -kHalfMax, kHalfMax)));
  const float least = format == WeightFormat::kInt8 ? -127 : -8;
  const float most = format == WeightFormat::kInt8 ? 127 : 7;
  for (size_t i = 0; i < values.size(); ++i) {
    // Clamped first: the quotient may be huge where the scale was too small for fp16.
    const float quotient = scale == 0 ? 0 : std::clamp(values[i] / scale, least, most);
    q[i] = static_cast<int8_t>(RoundToEven(quotient));
  }
  return scale;
}

}  // namespace

TensorFormat QuantizeFormat(WeightFormat format) {
  BW_CHECK(IsQuantized(format));
  return {.format = format, .group = kQuantizeGroup, .has_offset = false, .half_scales = true};
}

QuantizedRows QuantizeRows(absl::Span<const float> values, int64_t rows, int64_t cols, WeightFormat format) {
  BW_CHECK(IsQuantized(format));
  BW_CHECK(rows >= 0 && cols >= 0 && static_cast<int64_t>(values.size()) == rows * cols);
  const int64_t groups = (cols + kQuantizeGroup - 1) / kQuantizeGroup;
  QuantizedRows result;
  result.q.resize(rows * cols);
  result.scales.resize(rows * groups);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t col = group * kQuantizeGroup;
      const int64_t at = row * cols + col;
      const int64_t count = std::min<int64_t>(kQuantizeGroup, cols - col);
      result.scales[row * groups + group] =
          QuantizeGroup(values.subspan(at, count), format, result.q.data() + at);
    }
  }
  return result;
}

}  // namespace bellwether
