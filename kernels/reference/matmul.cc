#include <algorithm>
#include <cstring>

#include "kernels/reference/reference.h"

namespace bellwether::kernels::reference {
namespace {

template <typename T>
T Load(const std::byte* array, int64_t index) {
  T value;
  std::memcpy(&value, array + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}
template <typename T>
void Store(std::byte* array, int64_t index, T value) {
  std::memcpy(array + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

int64_t BlockScalesOffset(const PackedMatrix& weights) { return (weights.packed_cols() + 63) / 64 * 64; }

// Round to nearest even for |x| <= 2^22: the addition leaves no bits for a fraction.
float RoundToInteger(float x) {
  const float magic = 0x1.8p23f;
  return (x + magic) - magic;
}

// max|x| / 127; NaN if any x is not finite, so that only this row's outputs are lost.
float ActivationScale(const float* x, int64_t count) {
  float maximum = 0, poison = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    maximum = std::max(maximum, magnitude);
    poison += x[i] * 0.0f;
  }
  return maximum / 127.0f + poison;
}

void QuantizeSegment(const PackedMatrix& weights, const PackedMatrix::Segment& segment, const float* x,
                     std::byte* out) {
  for (int b = segment.block_begin; b < segment.block_end; ++b) {
    const PackedMatrix::Block& block = weights.blocks()[b];
    const int32_t group = (block.begin - segment.begin) / kActivationGroup * kActivationGroup;
    const float scale =
        ActivationScale(x + segment.begin + group, std::min(kActivationGroup, segment.count - group));
    BlockScale block_scale{scale, 0};
    for (int i = 0; i < block.padded; ++i) {
      int q = 0;
      // Neither zero nor NaN. A subnormal scale is coarse, hence the bounds.
      if (i < block.count && scale > 0) {
        q = static_cast<int>(RoundToInteger(std::clamp(x[block.begin + i] / scale, -127.0f, 127.0f)));
      }
      Store(out, block.packed_begin + i, static_cast<int8_t>(q));
      block_scale.sum += q;
    }
    Store(out + BlockScalesOffset(weights), b, block_scale);
  }
}

// The segment's share of output `row` of the weights, float formats.
float FloatSegment(const PackedMatrix& weights, const PackedMatrix::Segment& segment, int64_t row,
                   const std::byte* x) {
  const std::byte* panel = weights.panel_data(row / kPanelRows);
  const int64_t width = weights.panel_width(row / kPanelRows), lane = row % kPanelRows;
  float sum = 0;
  for (int64_t k = segment.packed_begin; k < segment.packed_begin + segment.packed_count; ++k) {
    float w = 0;
    if (weights.format() == WeightFormat::kF32) w = Load<float>(panel, k * width + lane);
    if (weights.format() == WeightFormat::kF16) w = F32FromF16(Load<uint16_t>(panel, k * width + lane));
    if (weights.format() == WeightFormat::kBF16) {
      w = F32FromBF16(Load<uint16_t>(panel, (k / 2 * width + lane) * 2 + k % 2));
    }
    sum += Load<float>(x, k) * w;
  }
  return sum;
}

// Walks the blocks of one output of a quantised matrix, segment after segment.
class QuantizedOutput {
 public:
  QuantizedOutput(const PackedMatrix& weights, int64_t row)
      : weights_(weights),
        next_(weights.panel_data(row / kPanelRows)),
        width_(weights.panel_width(row / kPanelRows)),
        lane_(row % kPanelRows) {}

  float Segment(const PackedMatrix::Segment& segment, const std::byte* x) {
    float sum = 0;
    for (int b = segment.block_begin; b < segment.block_end; ++b) {
      const PackedMatrix::Block& block = weights_.blocks()[b];
      if (block.new_scales) {
        scale_ = ReadScale();
        offset_ = weights_.spec().has_offset ? ReadScale() : 0;
      }
      int32_t dot = 0;
      for (int i = 0; i < block.count; ++i) dot += Q(i) * Load<int8_t>(x, block.packed_begin + i);
      next_ += width_ * block.padded / (weights_.format() == WeightFormat::kInt8 ? 1 : 2);
      const auto activation = Load<BlockScale>(x + BlockScalesOffset(weights_), b);
      sum += activation.scale *
             (scale_ * static_cast<float>(dot) + offset_ * static_cast<float>(activation.sum));
    }
    return sum;
  }

 private:
  float ReadScale() {
    const bool half = weights_.spec().half_scales;
    const float value = half ? F32FromF16(Load<uint16_t>(next_, lane_)) : Load<float>(next_, lane_);
    next_ += width_ * (half ? 2 : 4);
    return value;
  }
  int Q(int col) const {
    if (weights_.format() == WeightFormat::kInt8) {
      return Load<uint8_t>(next_, (col / 4 * width_ + lane_) * 4 + col % 4) + weights_.lowest_q();
    }
    const int both = Load<uint8_t>(next_, (col / 8 * width_ + lane_) * 4 + col % 4);
    return (col % 8 < 4 ? both & 15 : both >> 4) + weights_.lowest_q();
  }

  const PackedMatrix& weights_;
  const std::byte* next_;
  const int64_t width_, lane_;
  float scale_ = 0, offset_ = 0;
};

void ComputeOutput(const MatmulArgs& args, int64_t row, int64_t output) {
  const PackedMatrix& weights = *args.weights;
  const std::byte* x = args.prepared + row * weights.prepared_row_bytes();
  QuantizedOutput quantized(weights, output);
  float sums[kPartialSumsMax];
  int depth = 0;
  for (const PackedMatrix::Segment& segment : weights.segments()) {
    sums[depth++] = IsQuantized(weights.format()) ? quantized.Segment(segment, x)
                                                  : FloatSegment(weights, segment, output, x);
    for (int i = 0; i < segment.additions; ++i) {
      --depth;
      sums[depth - 1] += sums[depth];
    }
    if (segment.root >= 0)
      args.y[segment.root * args.root_stride + row * args.stride + output] = sums[--depth];
  }
}

}  // namespace

void PrepareRows(const PackedMatrix& weights, ConstRows x, int64_t row_begin, int64_t row_end,
                 std::byte* prepared) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::byte* out = prepared + row * weights.prepared_row_bytes();
    for (const PackedMatrix::Segment& segment : weights.segments()) {
      if (IsQuantized(weights.format())) {
        QuantizeSegment(weights, segment, x.row(row), out);
        continue;
      }
      for (int64_t i = 0; i < segment.packed_count; ++i) {
        Store(out, segment.packed_begin + i, i < segment.count ? x.row(row)[segment.begin + i] : 0.0f);
      }
    }
  }
}

void Matmul(const MatmulArgs& args) {
  const int64_t output_end = std::min(args.panel_end * kPanelRows, args.weights->rows());
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t output = args.panel_begin * kPanelRows; output < output_end; ++output) {
      ComputeOutput(args, row, output);
    }
  }
}

}  // namespace bellwether::kernels::reference
