#include <algorithm>

#include "kernels/cpu/portable.h"
#include "kernels/cpu/portable_vector.h"

namespace bellwether::kernels::portable {
namespace {

int64_t BlockScalesOffset(const PackedMatrix& weights) { return (weights.packed_cols() + 63) / 64 * 64; }

F4 RoundToInteger(F4 x) {
  const F4 magic = Broadcast(0x1.8p23f);
  return (x + magic) - magic;
}

// max|x| / 127; NaN if any x is not finite, so that only this row's outputs are lost.
float ActivationScale(const float* x, int count) {
  F4 maximum = {}, poison = {};
  for (int i = 0; i < count; i += kLanes) {
    const F4 value = count - i >= kLanes ? Load4(x + i) : LoadPart(x + i, count - i);
    maximum = Max(value, Max(-value, maximum));
    poison += value * Broadcast(0.0f);
  }
  return LargestLane(maximum) / 127.0f + SumOfLanes(poison);
}

void QuantizeSegment(const PackedMatrix& weights, const PackedMatrix::Segment& segment, const float* x,
                     std::byte* out) {
  const absl::Span<const PackedMatrix::Block> blocks = weights.blocks();
  float scale = 0;
  for (int b = segment.block_begin; b < segment.block_end; ++b) {
    const PackedMatrix::Block& block = blocks[b];
    if (b == segment.block_begin || block.activation_group != blocks[b - 1].activation_group) {
      scale = ActivationScale(x + block.begin,
                              std::min(kActivationGroup, segment.begin + segment.count - block.begin));
    }
    int32_t sum = 0;
    for (int i = 0; i < block.padded; i += kLanes) {
      I4 q = {};
      // Neither zero nor NaN. A subnormal scale is coarse, hence the bounds.
      if (scale > 0 && i < block.count) {
        const float* at = x + block.begin + i;
        const F4 value = block.count - i >= kLanes ? Load4(at) : LoadPart(at, block.count - i);
        const F4 ratio = value / Broadcast(scale);
        const F4 bounded = -Max(-Max(ratio, Broadcast(-127.0f)), Broadcast(-127.0f));
        q = __builtin_convertvector(RoundToInteger(bounded), I4);
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        out[block.packed_begin + i + lane] = static_cast<std::byte>(q[lane]);
        sum += q[lane];
      }
    }
    const BlockScale block_scale{scale, sum};
    std::memcpy(out + BlockScalesOffset(weights) + b * sizeof(BlockScale), &block_scale, sizeof(block_scale));
  }
}

// One tile: kRows rows of activations by 4 kVectors outputs. Every (row, output) is summed along the columns
// in order and on its own, so the tile's shape never changes a bit.
template <int kRows, int kVectors>
struct Tile {
  using Sums = F4[kRows][kVectors];

  const PackedMatrix& weights;
  const std::byte* panel = nullptr;
  int64_t width = 0;
  int64_t lane = 0;              // first output inside the panel
  const std::byte* x = nullptr;  // first row, prepared
  int64_t x_stride = 0;          // bytes
  // Quantised: where the next block starts, and the scales in force.
  const std::byte* next = nullptr;
  F4 scales[kVectors] = {};
  F4 offsets[kVectors] = {};

  template <WeightFormat kFormat>
  void LoadPair(int64_t k, F4* even, F4* odd) const {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int64_t output = lane + v * kLanes;
      if constexpr (kFormat == WeightFormat::kF32) {
        std::memcpy(&even[v], panel + (k * width + output) * 4, sizeof(F4));
        std::memcpy(&odd[v], panel + ((k + 1) * width + output) * 4, sizeof(F4));
      } else if constexpr (kFormat == WeightFormat::kF16) {
        even[v] = F32FromF16Bits(LoadHalves(panel + (k * width + output) * 2));
        odd[v] = F32FromF16Bits(LoadHalves(panel + ((k + 1) * width + output) * 2));
      } else {
        U4 pairs;
        std::memcpy(&pairs, panel + (k / 2 * width + output) * 4, sizeof(pairs));
        even[v] = F32FromBF16Bits(pairs);
        odd[v] = std::bit_cast<F4>(pairs & 0xffff0000u);
      }
    }
  }

  template <WeightFormat kFormat>
  void FloatSegment(const PackedMatrix::Segment& segment, Sums& out) const {
    F4 sums[kRows][kVectors] = {};
    const int64_t end = segment.packed_begin + segment.packed_count;
    for (int64_t k = segment.packed_begin; k < end; k += 2) {
      F4 even[kVectors], odd[kVectors];
      LoadPair<kFormat>(k, even, odd);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        float pair[2];
        std::memcpy(pair, x + r * x_stride + k * 4, sizeof(pair));
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] += Broadcast(pair[0]) * even[v];
          sums[r][v] += Broadcast(pair[1]) * odd[v];
        }
      }
    }
    std::memcpy(out, sums, sizeof(sums));
  }

  void ReadScales(F4* into) {
    const int bytes = weights.spec().half_scales ? 2 : 4;
    for (int v = 0; v < kVectors; ++v) {
      const std::byte* at = next + (lane + v * kLanes) * bytes;
      if (weights.spec().half_scales) {
        into[v] = F32FromF16Bits(LoadHalves(at));
      } else {
        std::memcpy(&into[v], at, sizeof(F4));
      }
    }
    next += width * bytes;
  }

  // q of the block's columns as floats: their products and sums stay below 2^24, so they are exact.
  void Unpack(const PackedMatrix::Block& block, F4 (*q)[kVectors]) {
    const bool int8 = weights.format() == WeightFormat::kInt8;
    const int columns = int8 ? 4 : 8;  // of one group of four bytes
    for (int group = 0; group < block.padded / columns; ++group) {
      for (int v = 0; v < kVectors; ++v) {
        U4 bytes;
        std::memcpy(&bytes, next + (group * width + lane + v * kLanes) * 4, sizeof(bytes));
        for (int i = 0; i < columns; ++i) {
          const U4 bits = int8 ? bytes >> (8 * i) & 0xff : bytes >> (8 * (i % 4) + i / 4 * 4) & 0xf;
          q[group * columns + i][v] =
              __builtin_convertvector(std::bit_cast<I4>(bits) + weights.lowest_q(), F4);
        }
      }
    }
    next += width * block.padded / (int8 ? 1 : 2);
  }

  void QuantizedSegment(const PackedMatrix::Segment& segment, Sums& sums) {
    for (int b = segment.block_begin; b < segment.block_end; ++b) {
      const PackedMatrix::Block& block = weights.blocks()[b];
      if (block.new_scales) {
        ReadScales(scales);
        if (weights.spec().has_offset) ReadScales(offsets);
      }
      F4 q[kActivationGroup][kVectors];
      Unpack(block, q);
      for (int r = 0; r < kRows; ++r) {
        const std::byte* row = x + r * x_stride;
        const auto* activations = reinterpret_cast<const int8_t*>(row) + block.packed_begin;
        BlockScale activation;
        std::memcpy(&activation, row + BlockScalesOffset(weights) + b * sizeof(BlockScale),
                    sizeof(activation));
        F4 dot[kVectors] = {};
        for (int i = 0; i < block.count; ++i) {
          const F4 factor = Broadcast(activations[i]);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) dot[v] += factor * q[i][v];
        }
        const F4 sum = Broadcast(static_cast<float>(activation.sum));
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] += Broadcast(activation.scale) * (scales[v] * dot[v] + offsets[v] * sum);
        }
      }
    }
  }

  void OneSegment(const PackedMatrix::Segment& segment, Sums& sums) {
    std::memset(sums, 0, sizeof(Sums));
    switch (weights.format()) {
      case WeightFormat::kF32:
        return FloatSegment<WeightFormat::kF32>(segment, sums);
      case WeightFormat::kBF16:
        return FloatSegment<WeightFormat::kBF16>(segment, sums);
      case WeightFormat::kF16:
        return FloatSegment<WeightFormat::kF16>(segment, sums);
      default:
        return QuantizedSegment(segment, sums);
    }
  }
};

template <int kRows, int kVectors>
void ComputeTile(const MatmulArgs& args, int64_t panel, int64_t lane, int64_t row) {
  const PackedMatrix& weights = *args.weights;
  const int64_t stride = weights.prepared_row_bytes();
  Tile<kRows, kVectors> tile{weights, weights.panel_data(panel),    weights.panel_width(panel),
                             lane,    args.prepared + row * stride, stride};
  tile.next = tile.panel;
  typename Tile<kRows, kVectors>::Sums stack[kPartialSumsMax];
  const int64_t output = panel * kPanelRows + lane;
  const int64_t outputs = std::min<int64_t>(kVectors * kLanes, weights.rows() - output);
  int depth = 0;
  for (const PackedMatrix::Segment& segment : weights.segments()) {
    tile.OneSegment(segment, stack[depth++]);
    for (int i = 0; i < segment.additions; ++i) {
      --depth;
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) stack[depth - 1][r][v] += stack[depth][r][v];
      }
    }
    if (segment.root < 0) continue;
    --depth;
    for (int r = 0; r < kRows; ++r) {
      float* y = args.y + segment.root * args.root_stride + (row + r) * args.stride + output;
      for (int64_t i = 0; i < outputs; ++i) y[i] = stack[depth][r][i / kLanes][i % kLanes];
    }
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
      float* columns = reinterpret_cast<float*>(out) + segment.packed_begin;
      std::copy_n(x.row(row) + segment.begin, segment.count, columns);
      std::fill(columns + segment.count, columns + segment.packed_count, 0.0f);
    }
  }
}

void Matmul(const MatmulArgs& args) {
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    const int64_t width =
        std::min<int64_t>(kPanelRows, args.weights->rows() - panel * kPanelRows);  // without padding
    int64_t row = 0;
    // Four rows share what is loaded; a single row reads longer runs of memory instead.
    if (args.rows >= 4) {
      for (int64_t lane = 0; lane < width; lane += 2 * kLanes) {
        for (row = 0; row + 4 <= args.rows; row += 4) ComputeTile<4, 2>(args, panel, lane, row);
      }
    }
    for (; row < args.rows; ++row) {
      int64_t lane = 0;
      for (; lane + 32 <= width; lane += 32) ComputeTile<1, 8>(args, panel, lane, row);
      for (; lane < width; lane += kLaneRows) ComputeTile<1, 4>(args, panel, lane, row);
    }
  }
}

}  // namespace bellwether::kernels::portable
