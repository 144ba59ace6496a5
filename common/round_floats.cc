#include "common/round_floats.h"

#include <bit>
#include <cstdint>

namespace bellwether {
namespace {

constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;

// As F32FromF16(F16FromF32(value)), without branches: whole checkpoints go through here.
bool RoundToF16(absl::Span<float> values) {
  uint32_t overflows = 0;
  for (float& value : values) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = bits & ~kSign;
    const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & ~0x1fffu;
    const float subnormal = (std::bit_cast<float>(magnitude) + 0.5f) - 0.5f;
    uint32_t result = magnitude < 0x38800000u ? std::bit_cast<uint32_t>(subnormal) : normal;
    result = magnitude >= 0x477ff000u ? kInfinity : result;
    overflows |= static_cast<uint32_t>(result == kInfinity) & static_cast<uint32_t>(magnitude < kInfinity);
    result = magnitude > kInfinity ? 0x7fc00000u : result;
    value = std::bit_cast<float>(result | (bits & kSign));
  }
  return overflows == 0;
}

bool RoundToBF16(absl::Span<float> values) {
  uint32_t overflows = 0;
  for (float& value : values) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = bits & ~kSign;
    uint32_t result = (magnitude + 0x7fffu + ((magnitude >> 16) & 1u)) & 0xffff0000u;
    overflows |= static_cast<uint32_t>(result == kInfinity) & static_cast<uint32_t>(magnitude < kInfinity);
    result = magnitude > kInfinity ? (magnitude & 0xffff0000u) | 0x400000u : result;
    value = std::bit_cast<float>(result | (bits & kSign));
  }
  return overflows == 0;
}

}  // namespace

bool RoundFloats(WeightFormat format, absl::Span<float> values) {
  if (format == WeightFormat::kF16) return RoundToF16(values);
  if (format == WeightFormat::kBF16) return RoundToBF16(values);
  return true;
}

}  // namespace bellwether
