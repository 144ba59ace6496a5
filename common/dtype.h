#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace bellwether {

// Element types of activations and of the KV cache.
enum class DType : uint8_t { kF32 = 0, kBF16 = 1, kF16 = 2 };

constexpr int64_t SizeOf(DType type) { return type == DType::kF32 ? 4 : 2; }
constexpr std::string_view Name(DType type) {
  return type == DType::kF32 ? "fp32" : type == DType::kBF16 ? "bf16" : "fp16";
}

// How a packed weight matrix holds its values.
enum class WeightFormat : uint8_t { kF32 = 0, kBF16 = 1, kF16 = 2, kInt8 = 3, kInt4 = 4 };

constexpr bool IsQuantized(WeightFormat format) { return format >= WeightFormat::kInt8; }
constexpr std::string_view Name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "fp32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kF16:
      return "fp16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "unknown";
}

// Round to nearest even; NaN stays NaN.
inline uint16_t BF16FromF32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float F32FromBF16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}
uint16_t F16FromF32(float value);  // round to nearest even, overflow to infinity
float F32FromF16(uint16_t value);

}  // namespace bellwether
