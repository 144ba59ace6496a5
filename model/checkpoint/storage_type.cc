#include "model/checkpoint/storage_type.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "common/check.h"

namespace bellwether {
namespace {

constexpr int kColumnsMax = 256;
constexpr int kGroupsMax = 16;

// One block, widened. Groups without an offset leave it 0.
struct Block {
  int8_t q[kColumnsMax];
  float scales[kGroupsMax];
  float offsets[kGroupsMax];
};

struct Traits {
  std::string_view name;
  int64_t block_columns;
  int64_t block_bytes;
  TensorFormat format;
};

constexpr TensorFormat Quantized(WeightFormat format, int group, bool has_offset, bool half_scales) {
  return {.format = format, .group = group, .has_offset = has_offset, .half_scales = half_scales};
}

const Traits& TraitsOf(StorageType type) {
  constexpr WeightFormat kInt8 = WeightFormat::kInt8, kInt4 = WeightFormat::kInt4;
  static constexpr Traits kTraits[] = {
      {"F32", 1, 4, {.format = WeightFormat::kF32}},
      {"F16", 1, 2, {.format = WeightFormat::kF16}},
      {"BF16", 1, 2, {.format = WeightFormat::kBF16}},
      {"F64", 1, 8, {.format = WeightFormat::kF32}},
      {"Q8_0", 32, 34, Quantized(kInt8, 32, /*has_offset=*/false, /*half_scales=*/true)},
      {"Q4_0", 32, 18, Quantized(kInt4, 32, /*has_offset=*/false, /*half_scales=*/true)},
      {"Q4_1", 32, 20, Quantized(kInt4, 32, /*has_offset=*/true, /*half_scales=*/true)},
      {"Q5_0", 32, 22, Quantized(kInt8, 32, /*has_offset=*/false, /*half_scales=*/true)},
      {"Q5_1", 32, 24, Quantized(kInt8, 32, /*has_offset=*/true, /*half_scales=*/true)},
      {"Q4_K", 256, 144, Quantized(kInt4, 32, /*has_offset=*/true, /*half_scales=*/false)},
      {"Q5_K", 256, 176, Quantized(kInt8, 32, /*has_offset=*/true, /*half_scales=*/false)},
      {"Q6_K", 256, 210, Quantized(kInt8, 16, /*has_offset=*/false, /*half_scales=*/false)},
      {"Q4_0 v1", 32, 20, Quantized(kInt4, 32, /*has_offset=*/false, /*half_scales=*/false)},
      {"Q4_1 v1", 32, 24, Quantized(kInt4, 32, /*has_offset=*/true, /*half_scales=*/false)},
      {"Q4_0 v2", 32, 20, Quantized(kInt4, 32, /*has_offset=*/false, /*half_scales=*/false)},
      {"Q4_1 v2", 32, 24, Quantized(kInt4, 32, /*has_offset=*/true, /*half_scales=*/false)},
      {"Q8_0 v2", 32, 36, Quantized(kInt8, 32, /*has_offset=*/false, /*half_scales=*/false)},
  };
  static_assert(std::size(kTraits) == static_cast<int>(StorageType::kQ8_0V2) + 1);
  return kTraits[static_cast<int>(type)];
}

uint8_t Byte(const std::byte* at) { return static_cast<uint8_t>(*at); }

uint16_t Half(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

double Double(const std::byte* at) {
  double value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// F32FromF16 without branches: whole checkpoints go through here.
float HalfFloat(const std::byte* at) {
  const uint32_t bits = Half(at);
  const uint32_t magnitude = (bits & 0x7fffu) << 13;
  // The exponent's bias differs by 112; the product is exact, for subnormal halves too.
  uint32_t result = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  result |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN
  return std::bit_cast<float>(result | (bits & 0x8000u) << 16);
}

// Low nibbles are columns 0-15, high ones 16-31. `high_bits` holds a fifth bit for each column; `bias` is
// subtracted.
void DecodeNibbles(const std::byte* nibbles, uint32_t high_bits, int bias, int8_t* q) {
  for (int i = 0; i < 16; ++i) {
    const int low = (Byte(nibbles + i) & 0xf) | static_cast<int>((high_bits >> i) & 1u) << 4;
    const int high = (Byte(nibbles + i) >> 4) | static_cast<int>((high_bits >> (i + 16)) & 1u) << 4;
    q[i] = static_cast<int8_t>(low - bias);
    q[i + 16] = static_cast<int8_t>(high - bias);
  }
}

// ggml's first generation: low nibbles are even columns, high ones odd.
void DecodeNibblePairs(const std::byte* nibbles, int bias, int8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[2 * i] = static_cast<int8_t>((Byte(nibbles + i) & 0xf) - bias);
    q[2 * i + 1] = static_cast<int8_t>((Byte(nibbles + i) >> 4) - bias);
  }
}

uint32_t HighBits(const std::byte* at) {
  uint32_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

// The six-bit scales and minimums of the eight sub-blocks of Q4_K and Q5_K, packed in 12 bytes. The products
// with the block's fp16 factors are exact in fp32.
void DecodeSixBitScales(const std::byte* block, Block& out) {
  const float scale = HalfFloat(block), minimum = HalfFloat(block + 2);
  const std::byte* packed = block + 4;
  for (int i = 0; i < 8; ++i) {
    int scale_bits, minimum_bits;
    if (i < 4) {
      scale_bits = Byte(packed + i) & 63;
      minimum_bits = Byte(packed + i + 4) & 63;
    } else {
      scale_bits = (Byte(packed + i + 4) & 0xf) | (Byte(packed + i - 4) >> 6) << 4;
      minimum_bits = (Byte(packed + i + 4) >> 4) | (Byte(packed + i) >> 6) << 4;
    }
    out.scales[i] = scale * static_cast<float>(scale_bits);
    out.offsets[i] = -(minimum * static_cast<float>(minimum_bits));
  }
}

// Each 32 bytes of nibbles hold two sub-blocks: low nibbles the first, high ones the second. Q5_K's fifth bit
// of column i of sub-block s is bit s of high[i].
void DecodeQ4Or5K(const std::byte* block, bool five_bits, Block& out) {
  DecodeSixBitScales(block, out);
  const std::byte* high = block + 16;
  const std::byte* nibbles = five_bits ? block + 48 : block + 16;
  for (int sub = 0; sub < 8; ++sub) {
    for (int i = 0; i < 32; ++i) {
      const int byte = Byte(nibbles + sub / 2 * 32 + i);
      int value = sub % 2 == 0 ? byte & 0xf : byte >> 4;
      if (five_bits) value |= ((Byte(high + i) >> sub) & 1) << 4;
      out.q[sub * 32 + i] = static_cast<int8_t>(value);
    }
  }
}

// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, one fp16 factor. Each half of 128
// columns uses 64 and 32 of those bytes; its four quarters of 32 columns share them.
void DecodeQ6K(const std::byte* block, Block& out) {
  const float scale = HalfFloat(block + 208);
  for (int i = 0; i < 16; ++i) {
    out.scales[i] = scale * static_cast<float>(static_cast<int8_t>(Byte(block + 192 + i)));
    out.offsets[i] = 0;
  }
  for (int half = 0; half < 2; ++half) {
    const std::byte* low = block + half * 64;
    const std::byte* high = block + 128 + half * 32;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const int byte = Byte(low + quarter % 2 * 32 + i);
        const int nibble = quarter < 2 ? byte & 0xf : byte >> 4;
        const int upper = (Byte(high + i) >> (2 * quarter)) & 3;
        out.q[half * 128 + quarter * 32 + i] = static_cast<int8_t>((nibble | upper << 4) - 32);
      }
    }
  }
}

float Float(const std::byte* at) {
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Formats with an fp32 scale, some with an fp32 offset after it.
void DecodeOldBlock(StorageType type, const std::byte* block, Block& out) {
  out.scales[0] = Float(block);
  out.offsets[0] = 0;
  switch (type) {
    case StorageType::kQ4_0V1:
      return DecodeNibblePairs(block + 4, 8, out.q);
    case StorageType::kQ4_1V1:
      out.offsets[0] = Float(block + 4);
      return DecodeNibblePairs(block + 8, 0, out.q);
    case StorageType::kQ4_0V2:
      return DecodeNibbles(block + 4, 0, 8, out.q);
    case StorageType::kQ4_1V2:
      out.offsets[0] = Float(block + 4);
      return DecodeNibbles(block + 8, 0, 0, out.q);
    default:
      BW_CHECK(type == StorageType::kQ8_0V2);
      std::memcpy(out.q, block + 4, 32);
  }
}

void DecodeBlock(StorageType type, const std::byte* block, Block& out) {
  // Formats with groups of 32 begin with an fp16 scale, some with an fp16 offset after it.
  out.scales[0] = HalfFloat(block);
  out.offsets[0] = 0;
  switch (type) {
    case StorageType::kQ8_0:
      std::memcpy(out.q, block + 2, 32);
      return;
    case StorageType::kQ4_0:
      return DecodeNibbles(block + 2, 0, 8, out.q);
    case StorageType::kQ4_1:
      out.offsets[0] = HalfFloat(block + 2);
      return DecodeNibbles(block + 4, 0, 0, out.q);
    case StorageType::kQ5_0:
      return DecodeNibbles(block + 6, HighBits(block + 2), 16, out.q);
    case StorageType::kQ5_1:
      out.offsets[0] = HalfFloat(block + 2);
      return DecodeNibbles(block + 8, HighBits(block + 4), 0, out.q);
    case StorageType::kQ4_K:
      return DecodeQ4Or5K(block, /*five_bits=*/false, out);
    case StorageType::kQ5_K:
      return DecodeQ4Or5K(block, /*five_bits=*/true, out);
    case StorageType::kQ6_K:
      return DecodeQ6K(block, out);
    case StorageType::kQ4_0V1:
    case StorageType::kQ4_1V1:
    case StorageType::kQ4_0V2:
    case StorageType::kQ4_1V2:
    case StorageType::kQ8_0V2:
      return DecodeOldBlock(type, block, out);
    case StorageType::kF32:
    case StorageType::kF16:
    case StorageType::kBF16:
    case StorageType::kF64:
      break;
  }
  BW_CHECK(false);
}

// Decodes the blocks that columns [first_col, first_col + cols) touch and gives each to visit(block, begin,
// end, out), where [begin, end) are columns of the block and out counts columns from first_col.
template <typename Visit>
void ForEachBlock(StorageType type, const std::byte* row, int64_t first_col, int64_t cols, Visit visit) {
  const int64_t block_columns = BlockColumns(type);
  Block block;
  for (int64_t done = 0; done < cols;) {
    const int64_t col = first_col + done;
    const int64_t begin = col % block_columns;
    const int64_t count = std::min(block_columns - begin, cols - done);
    DecodeBlock(type, row + col / block_columns * BlockBytes(type), block);
    visit(block, begin, begin + count, done);
    done += count;
  }
}

}  // namespace

std::string_view Name(StorageType type) { return TraitsOf(type).name; }
int64_t BlockColumns(StorageType type) { return TraitsOf(type).block_columns; }
int64_t BlockBytes(StorageType type) { return TraitsOf(type).block_bytes; }
TensorFormat FormatOf(StorageType type) { return TraitsOf(type).format; }

void DecodeFloats(StorageType type, const std::byte* row, int64_t first_col, absl::Span<float> out) {
  if (out.empty()) return;
  const auto cols = static_cast<int64_t>(out.size());
  switch (type) {
    case StorageType::kF32:
      std::memcpy(out.data(), row + first_col * 4, out.size() * 4);
      return;
    case StorageType::kF16:
      for (int64_t i = 0; i < cols; ++i) out[i] = HalfFloat(row + (first_col + i) * 2);
      return;
    case StorageType::kBF16:
      for (int64_t i = 0; i < cols; ++i) out[i] = F32FromBF16(Half(row + (first_col + i) * 2));
      return;
    case StorageType::kF64:
      for (int64_t i = 0; i < cols; ++i) out[i] = static_cast<float>(Double(row + (first_col + i) * 8));
      return;
    default:
      break;
  }
  const TensorFormat format = FormatOf(type);
  ForEachBlock(type, row, first_col, cols, [&](const Block& block, int64_t begin, int64_t end, int64_t at) {
    for (int64_t i = begin; i < end; ++i) {
      const float product = block.scales[i / format.group] * static_cast<float>(block.q[i]);
      out[at + i - begin] = format.has_offset ? product + block.offsets[i / format.group] : product;
    }
  });
}

void DecodeQuantized(StorageType type, const std::byte* row, int64_t first_col, absl::Span<int8_t> q,
                     float* scales, float* offsets) {
  const TensorFormat format = FormatOf(type);
  BW_CHECK(IsQuantized(format.format) && first_col % format.group == 0);
  const auto cols = static_cast<int64_t>(q.size());
  ForEachBlock(type, row, first_col, cols, [&](const Block& block, int64_t begin, int64_t end, int64_t at) {
    std::memcpy(q.data() + at, block.q + begin, end - begin);
    for (int64_t col = begin; col < end; col += format.group) {
      const int64_t group = (at + col - begin) / format.group;
      scales[group] = block.scales[col / format.group];
      if (format.has_offset) offsets[group] = block.offsets[col / format.group];
    }
  });
}

}  // namespace bellwether
