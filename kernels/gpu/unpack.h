#pragma once

// What the kernels for products share: from the bytes of weights.h to what tensor cores take, fragments of
// bf16, exactly, and scales; and where in their tables a block and a segment are.

#include "kernels/gpu/operand.h"
#include "kernels/gpu/simt.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

// 128 in both halves, from a register: with two constants a logic operation would be two instructions.
constexpr uint32_t kMagic = 0x43004300u;

// The A fragment of step `step` of a unit. `magic` is kMagic, zero_point that of int4.
template <WeightFormat kFormat>
BW_DEVICE void UnpackStep(const Words4 (&unit)[PartsPerUnit(kFormat)], int step, uint32_t magic,
                          uint32_t zero_point, uint32_t (&a)[4]) {
  if constexpr (kFormat == WeightFormat::kBF16) {
    const Words4& words = unit[step];
    a[0] = words.x, a[1] = words.y, a[2] = words.z, a[3] = words.w;
  } else if constexpr (kFormat == WeightFormat::kInt8) {
    const uint32_t words[2] = {step == 0 ? unit[0].x : unit[0].z, step == 0 ? unit[0].y : unit[0].w};
    for (int j = 0; j < 4; ++j) {
      // u = q + 128 in each half. 128 + u % 128 is a bf16 whose mantissa is u % 128; from it 128 goes if u's
      // top bit is set, else 256.
      const uint32_t pair = words[j / 2] >> (j % 2 * 8);
      a[j] = SubBF16((pair & 0x007f007fu) | magic, (pair & 0x00800080u) ^ (magic ^ 0x00800080u));
    }
  } else {
    const uint32_t word = step == 0 ? unit[0].x : step == 1 ? unit[0].y : step == 2 ? unit[0].z : unit[0].w;
    // 0x4300 + n is 128 + n in bf16; the zero point is 128 or 136.
    for (int j = 0; j < 4; ++j) a[j] = SubBF16((word >> (4 * j) & 0x000f000fu) | magic, zero_point);
  }
}

// The limbs of the A fragment of step `step` of a unit of fp16 or fp32.
template <WeightFormat kFormat>
BW_DEVICE void UnpackLimbs(const Words4 (&unit)[PartsPerUnit(kFormat)], int step,
                           uint32_t (&a)[Limbs(kFormat)][4]) {
  constexpr int kParts = PartsPerUnit(kFormat) / 2;  // of a step
  uint32_t words[kParts * 4];
  BW_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const Words4& part = unit[step * kParts + p];
    words[4 * p] = part.x, words[4 * p + 1] = part.y, words[4 * p + 2] = part.z, words[4 * p + 3] = part.w;
  }
  BW_UNROLL
  for (int j = 0; j < 4; ++j) {
    float low, high;
    if constexpr (kFormat == WeightFormat::kF32) {
      low = BitsFloat(words[2 * j]), high = BitsFloat(words[2 * j + 1]);
    } else {
      low = HalfToFloat(static_cast<uint16_t>(words[j] & 0xffffu));
      high = HalfToFloat(static_cast<uint16_t>(words[j] >> 16));
    }
    BW_UNROLL
    for (int limb = 0; limb < Limbs(kFormat); ++limb) a[limb][j] = TakeLimbs(low, high);
  }
}

// The products of limbs, for multiply(limb of the weights, limb of x) to do: those that matter to fp32, the
// largest first. The very first one is summed by itself, as the others are small beside it.
template <int kLimbs, typename Multiply>
BW_DEVICE void ForLimbProducts(const Multiply& multiply) {
  BW_UNROLL
  for (int both = 0; both < kLimbs; ++both) {
    BW_UNROLL
    for (int limb = 0; limb <= both; ++limb) multiply(limb, both - limb);
  }
}

BW_DEVICE uint32_t ZeroPoint(const WeightView& weights) {
  return weights.offsets != nullptr ? 0x43004300u : 0x43084308u;
}

// Scales or offsets of rows g and g + 8 as they are stored: a pair of fp16 (twice), or two fp32. Two loads
// either way, so that nothing waits for them before they are used.
BW_DEVICE Words2 LoadRowPair(const void* at, bool half) {
  const auto* words = static_cast<const uint32_t*>(at);
  return {Load(words), Load(words + (half ? 0 : 1))};
}
struct RowPair {
  float low, high;  // of rows g and g + 8
};
BW_DEVICE RowPair Value(const Words2& words, bool half) {
  const float low = HalfToFloat(static_cast<uint16_t>(words.x & 0xffffu));
  const float high = HalfToFloat(static_cast<uint16_t>(words.y >> 16));
  return {half ? low : BitsFloat(words.x), half ? high : BitsFloat(words.y)};
}

// Which output of the arguments `block` is of, if each block has so many tiles; `block` becomes its place
// there.
template <typename Args>
BW_DEVICE const auto& OutputOf(const Args& args, int tiles, int& block) {
  int index = 0;
  while (index + 1 < args.output_count) {
    const int blocks = (args.outputs[index].weights.tiles + tiles - 1) / tiles;
    if (block < blocks) break;
    block -= blocks;
    ++index;
  }
  return args.outputs[index];
}

// The first set of a segment that begins with `unit`. All have as many steps.
template <WeightFormat kFormat>
BW_DEVICE int FirstSet(const WeightTable& table, int unit) {
  return static_cast<uint32_t>(unit * StepsPerUnit(kFormat)) / static_cast<uint32_t>(table.set_steps);
}
// Whether a set ends with step `step` of the matrix.
BW_DEVICE bool EndsSet(const WeightTable& table, int step) {
  return ((step + 1) & (table.set_steps - 1)) == 0;
}

BW_DEVICE int FirstUnit(const WeightTable& table, int segment) {
  if (segment <= WeightTable::kInline) return table.unit_bounds[segment];
  return segment < table.segment_count ? Load(&table.segments[segment].unit_begin) : table.units;
}

}  // namespace bellwether::gpu
