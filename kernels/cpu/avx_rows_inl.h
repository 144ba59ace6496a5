// The row-by-row functions of kernels.h; include avx512_vector.h or avx2_vector.h first.
#pragma once

#include <algorithm>

#include "common/dtype.h"
#include "kernels/cpu/avx_math_inl.h"
#include "kernels/kernels.h"

namespace bellwether::kernels::BW_LEVEL {

inline constexpr int64_t kLanes = 16;

// Sum over i of f(i, count): a vector of which the first `count` lanes stand for columns i ... and the others
// are zero. Four running sums, so that additions overlap; which column goes to which depends on `cols` alone.
template <typename Term>
BW_SIMD_INLINE float SumOverColumns(int64_t cols, const Term& term) {
  Vector sums[4] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= cols; i += 4 * kLanes) {
    BW_UNROLL
    for (int s = 0; s < 4; ++s) sums[s] = Add(sums[s], term(i + s * kLanes, kLanes));
  }
  for (int s = 0; i < cols; i += kLanes, ++s) {
    sums[s] = Add(sums[s], term(i, std::min(kLanes, cols - i)));
  }
  return SumOfLanes(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

struct SquaresOf {
  const float* x;
  BW_SIMD_INLINE Vector operator()(int64_t i, int64_t count) const {
    const Vector v = LoadFirst(x + i, count);
    return Multiply(v, v);
  }
};
struct ValuesOf {
  const float* x;
  BW_SIMD_INLINE Vector operator()(int64_t i, int64_t count) const { return LoadFirst(x + i, count); }
};
struct SquaredDeviationsOf {
  const float* x;
  float mean;
  BW_SIMD_INLINE Vector operator()(int64_t i, int64_t count) const {
    const Vector deviation = Subtract(LoadFirst(x + i, count), Broadcast(mean));
    return Select(count, Multiply(deviation, deviation), Zero());
  }
};

BW_SIMD_INLINE float InverseSquareRoot(float x) { return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

BW_SIMD inline void RmsNorm(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* in = x.row(row);
    const float mean = SumOverColumns(cols, SquaresOf{in}) / static_cast<float>(cols);
    const Vector factor = Broadcast(InverseSquareRoot(mean + epsilon));
    for (int64_t i = 0; i < cols; i += kLanes) {
      const int64_t count = std::min(kLanes, cols - i);
      const Vector y = Multiply(Multiply(LoadFirst(in + i, count), factor), LoadFirst(weight + i, count));
      StoreFirst(y, out.row(row) + i, count);
    }
  }
}

BW_SIMD inline void LayerNorm(ConstRows x, const float* weight, const float* bias, int64_t cols,
                              float epsilon, MutableRows out) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* in = x.row(row);
    const float mean = SumOverColumns(cols, ValuesOf{in}) / static_cast<float>(cols);
    const float variance = SumOverColumns(cols, SquaredDeviationsOf{in, mean}) / static_cast<float>(cols);
    const Vector factor = Broadcast(InverseSquareRoot(variance + epsilon));
    for (int64_t i = 0; i < cols; i += kLanes) {
      const int64_t count = std::min(kLanes, cols - i);
      const Vector normal = Multiply(Subtract(LoadFirst(in + i, count), Broadcast(mean)), factor);
      StoreFirst(MultiplyAdd(normal, LoadFirst(weight + i, count), LoadFirst(bias + i, count)),
                 out.row(row) + i, count);
    }
  }
}

BW_SIMD inline void Rope(float* row, int heads, int head_dim, const float* cosines, const float* sines) {
  const int64_t half = head_dim / 2;
  for (int head = 0; head < heads; ++head, row += head_dim) {
    for (int64_t i = 0; i < half; i += kLanes) {
      const int64_t count = std::min(kLanes, half - i);
      const Vector a = LoadFirst(row + i, count), b = LoadFirst(row + half + i, count);
      const Vector cosine = LoadFirst(cosines + i, count), sine = LoadFirst(sines + i, count);
      StoreFirst(NegativeMultiplyAdd(b, sine, Multiply(a, cosine)), row + i, count);
      StoreFirst(MultiplyAdd(a, sine, Multiply(b, cosine)), row + half + i, count);
    }
  }
}

BW_SIMD inline void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) {
  const Vector one = Broadcast(1.0f);
  for (int64_t row = 0; row < gate.rows; ++row) {
    for (int64_t i = 0; i < cols; i += kLanes) {
      const int64_t count = std::min(kLanes, cols - i);
      const Vector x = LoadFirst(gate.row(row) + i, count);
      const Vector silu = Divide(x, Add(one, Exp(Subtract(Zero(), x))));
      StoreFirst(Multiply(silu, LoadFirst(up.row(row) + i, count)), gate.row(row) + i, count);
    }
  }
}

BW_SIMD inline void Gelu(MutableRows x, int64_t cols) {
  // x/2 (1 + tanh(u)) = x / (1 + e^-2u), which keeps its relative precision for very negative x.
  const Vector one = Broadcast(1.0f), minus_two_factor = Broadcast(-2.0f * 0.79788456f);
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t i = 0; i < cols; i += kLanes) {
      const int64_t count = std::min(kLanes, cols - i);
      const Vector v = LoadFirst(x.row(row) + i, count);
      const Vector cubic = MultiplyAdd(Multiply(v, v), Broadcast(0.044715f), one);
      const Vector exponent = Multiply(Multiply(v, minus_two_factor), cubic);
      StoreFirst(Divide(v, Add(one, Exp(exponent))), x.row(row) + i, count);
    }
  }
}

BW_SIMD inline void AddVectors(const float* a, const float* b, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t lanes = std::min(kLanes, count - i);
    StoreFirst(Add(LoadFirst(a + i, lanes), LoadFirst(b + i, lanes)), out + i, lanes);
  }
}

BW_SIMD inline void AddBias(MutableRows x, const float* bias, int64_t cols) {
  for (int64_t row = 0; row < x.rows; ++row) AddVectors(x.row(row), bias, cols, x.row(row));
}

// Rows of activations for PackedMatrix
// -----------------------------------------------------------------------------

BW_SIMD_INLINE void PrepareFloats(const PackedMatrix& weights, const float* x, float* prepared) {
  for (const PackedMatrix::Segment& segment : weights.segments()) {
    float* to = prepared + segment.packed_begin;
    for (int64_t i = 0; i < segment.packed_count; i += kLanes) {
      // Padding becomes zero: it lies past `count` but not past `packed_count`.
      const Vector v = LoadFirst(x + segment.begin + i, std::clamp<int64_t>(segment.count - i, 0, kLanes));
      StoreFirst(v, to + i, std::min<int64_t>(kLanes, segment.packed_count - i));
    }
  }
}

BW_SIMD_INLINE void PrepareBF16(const PackedMatrix& weights, const float* x, uint16_t* prepared) {
  for (const PackedMatrix::Segment& segment : weights.segments()) {
    uint16_t* to = prepared + segment.packed_begin;
    for (int64_t i = 0; i < segment.packed_count; i += kLanes) {
      uint16_t rounded[kLanes];
      StoreBF16(LoadFirst(x + segment.begin + i, std::clamp<int64_t>(segment.count - i, 0, kLanes)), rounded);
      std::memcpy(to + i, rounded, std::min<int64_t>(kLanes, segment.packed_count - i) * sizeof(uint16_t));
    }
  }
}

// q and the sum of q of one block.
BW_SIMD_INLINE int32_t QuantizeBlock(const PackedMatrix::Block& block, const float* x, float scale,
                                     std::byte* to) {
  int8_t q[2 * kLanes] = {};
  int32_t sum = 0;
  for (int64_t i = 0; i < block.count && scale != 0.0f; i += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, block.count - i);
    sum += StoreInt8(Divide(LoadFirst(x + block.begin + i, count), Broadcast(scale)), q + i);
  }
  std::memcpy(to, q, block.padded);
  return sum;
}

BW_SIMD_INLINE void PrepareInt8(const PackedMatrix& weights, const float* x, std::byte* prepared) {
  std::byte* scales = prepared + (weights.packed_cols() + 63) / 64 * 64;
  const auto blocks = weights.blocks();
  const int64_t count = static_cast<int64_t>(blocks.size());
  for (int64_t first = 0; first < count;) {
    int64_t last = first;
    while (last + 1 < count && blocks[last + 1].activation_group == blocks[first].activation_group) ++last;
    const int64_t begin = blocks[first].begin, cols = blocks[last].begin + blocks[last].count - begin;
    const float largest =
        LargestMagnitude(LoadFirst(x + begin, std::min(kLanes, cols)),
                         LoadFirst(x + begin + kLanes, std::max<int64_t>(0, cols - kLanes)));
    const float scale = largest / 127.0f;
    for (; first <= last; ++first) {
      const PackedMatrix::Block& block = blocks[first];
      const BlockScale result = {scale, QuantizeBlock(block, x, scale, prepared + block.packed_begin)};
      std::memcpy(scales + first * sizeof(BlockScale), &result, sizeof(result));
    }
  }
}

// KernelTable::prepare_rows; bf16 matrices get bf16 activations if `rounds_to_bf16`.
template <bool rounds_to_bf16>
BW_SIMD void PrepareRows(const PackedMatrix& weights, ConstRows x, int64_t row_begin, int64_t row_end,
                         std::byte* prepared) {
  const int64_t row_bytes = weights.prepared_row_bytes();
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::byte* to = prepared + row * row_bytes;
    if (IsQuantized(weights.format())) {
      PrepareInt8(weights, x.row(row), to);
    } else if (rounds_to_bf16 && weights.format() == WeightFormat::kBF16) {
      PrepareBF16(weights, x.row(row), reinterpret_cast<uint16_t*>(to));
    } else {
      PrepareFloats(weights, x.row(row), reinterpret_cast<float*>(to));
    }
  }
}

}  // namespace bellwether::kernels::BW_LEVEL
