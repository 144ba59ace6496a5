#include "model/checkpoint/storage_type.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/random.h"

namespace bellwether {
namespace {

constexpr StorageType kAll[] = {
    StorageType::kF32,    StorageType::kF16,    StorageType::kBF16,   StorageType::kQ8_0,
    StorageType::kQ4_0,   StorageType::kQ4_1,   StorageType::kQ5_0,   StorageType::kQ5_1,
    StorageType::kQ4_K,   StorageType::kQ5_K,   StorageType::kQ6_K,   StorageType::kQ4_0V1,
    StorageType::kQ4_1V1, StorageType::kQ4_0V2, StorageType::kQ4_1V2, StorageType::kQ8_0V2};

using Bytes = std::vector<uint8_t>;

float FloatAt(const Bytes& b, size_t at) {
  float value;
  std::memcpy(&value, &b[at], sizeof(value));
  return value;
}
float HalfAt(const Bytes& b, size_t at) { return F32FromF16(static_cast<uint16_t>(b[at] | b[at + 1] << 8)); }

// One value of one block, written out from the definition of each format.
double Expected(StorageType type, const Bytes& b, int i) {
  const double d = HalfAt(b, 0), m = HalfAt(b, 2);
  const auto nibble = [&](size_t base) { return i < 16 ? b[base + i] & 15 : b[base + i - 16] >> 4; };
  const auto fifth = [&](size_t base) { return (b[base + i / 8] >> (i % 8)) & 1; };
  const auto six_bits = [&](int sub, bool minimum) {
    const uint8_t* s = &b[4];
    if (sub < 4) return (minimum ? s[sub + 4] : s[sub]) & 63;
    return minimum ? (s[sub + 4] >> 4) | ((s[sub] >> 6) << 4) : (s[sub + 4] & 15) | ((s[sub - 4] >> 6) << 4);
  };
  const int sub = i / 32;  // of 256
  switch (type) {
    case StorageType::kQ8_0:
      return d * static_cast<int8_t>(b[2 + i]);
    case StorageType::kQ4_0:
      return d * (nibble(2) - 8);
    case StorageType::kQ4_1:
      return d * nibble(4) + m;
    case StorageType::kQ5_0:
      return d * (nibble(6) + 16 * fifth(2) - 16);
    case StorageType::kQ5_1:
      return d * (nibble(8) + 16 * fifth(4)) + m;
    case StorageType::kQ4_0V1:
      return static_cast<double>(FloatAt(b, 0)) * ((i % 2 ? b[4 + i / 2] >> 4 : b[4 + i / 2] & 15) - 8);
    case StorageType::kQ4_1V1:
      return static_cast<double>(FloatAt(b, 0)) * (i % 2 ? b[8 + i / 2] >> 4 : b[8 + i / 2] & 15) +
             FloatAt(b, 4);
    case StorageType::kQ4_0V2:
      return static_cast<double>(FloatAt(b, 0)) * (nibble(4) - 8);
    case StorageType::kQ4_1V2:
      return static_cast<double>(FloatAt(b, 0)) * nibble(8) + FloatAt(b, 4);
    case StorageType::kQ8_0V2:
      return static_cast<double>(FloatAt(b, 0)) * static_cast<int8_t>(b[4 + i]);
    case StorageType::kQ4_K:
    case StorageType::kQ5_K: {
      const bool five = type == StorageType::kQ5_K;
      const uint8_t pair = b[(five ? 48 : 16) + sub / 2 * 32 + i % 32];
      int q = sub % 2 ? pair >> 4 : pair & 15;
      if (five) q += 16 * ((b[16 + i % 32] >> sub) & 1);
      return d * six_bits(sub, false) * q - m * six_bits(sub, true);
    }
    case StorageType::kQ6_K: {
      const int half = i / 128, within = i % 128;
      const uint8_t low = b[half * 64 + within % 64];
      const int q = (within < 64 ? low & 15 : low >> 4) |
                    ((b[128 + half * 32 + within % 32] >> (within / 32 * 2)) & 3) << 4;
      return HalfAt(b, 208) * static_cast<double>(static_cast<int8_t>(b[192 + i / 16])) * (q - 32);
    }
    default:
      return 0;
  }
}

// Random bytes whose halves are moderate numbers.
Bytes RandomBlock(StorageType type, uint32_t seed) {
  Bytes block(BlockBytes(type));
  for (size_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<uint8_t>(Philox4x32({seed, uint32_t(i), 0, 0}, {1, 2})[0]);
  for (const size_t half : {size_t{1}, size_t{3}, size_t{209}}) {
    if (half < block.size()) block[half] = static_cast<uint8_t>((block[half] & 0x83) | 0x28);
  }
  if (type >= StorageType::kQ4_0V1) {  // floats instead
    const float scale = 0.01f * static_cast<float>(seed + 1), offset = -0.3f;
    std::memcpy(block.data(), &scale, sizeof(scale));
    if (FormatOf(type).has_offset) std::memcpy(&block[4], &offset, sizeof(offset));
  }
  return block;
}

TEST(StorageTypeTest, EveryBlockFormatDecodesAsDefined) {
  for (const StorageType type : kAll) {
    if (BlockColumns(type) == 1) continue;
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const Bytes block = RandomBlock(type, seed);
      std::vector<float> values(BlockColumns(type));
      DecodeFloats(type, reinterpret_cast<const std::byte*>(block.data()), 0, absl::MakeSpan(values));
      for (int i = 0; i < BlockColumns(type); ++i) {
        const double expected = Expected(type, block, i);
        // Two roundings at most, of numbers up to the size of the offset.
        ASSERT_NEAR(values[i], expected, 1e-6 * (std::abs(expected) + 64)) << Name(type) << " " << i;
      }
    }
  }
}

TEST(StorageTypeTest, EveryHalfIsWidenedExactly) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size());
  DecodeFloats(StorageType::kF16, reinterpret_cast<const std::byte*>(halves.data()), 0,
               absl::MakeSpan(values));
  for (size_t i = 0; i < halves.size(); ++i) {
    const float expected = F32FromF16(halves[i]);
    ASSERT_EQ(std::memcmp(&values[i], &expected, sizeof(expected)), 0) << i;
  }
}

TEST(StorageTypeTest, WindowsGiveTheSameAsWholeRows) {
  for (const StorageType type : kAll) {
    const int64_t blocks = 3, cols = blocks * BlockColumns(type) * (BlockColumns(type) == 1 ? 32 : 1);
    Bytes row;
    for (int64_t i = 0; i < cols / BlockColumns(type); ++i) {
      const Bytes block = RandomBlock(type, static_cast<uint32_t>(i));
      row.insert(row.end(), block.begin(), block.end());
    }
    ASSERT_EQ(static_cast<int64_t>(row.size()), RowBytes(type, cols));
    row.insert(row.begin(), 0);  // an odd address
    const auto* data = reinterpret_cast<const std::byte*>(row.data()) + 1;
    std::vector<float> whole(cols);
    DecodeFloats(type, data, 0, absl::MakeSpan(whole));
    for (int64_t begin = 0; begin < cols; begin += 7) {
      for (int64_t count : {int64_t{0}, int64_t{1}, int64_t{33}, cols - begin}) {
        count = std::min(count, cols - begin);
        std::vector<float> window(count);
        DecodeFloats(type, data, begin, absl::MakeSpan(window));
        if (count == 0) continue;
        ASSERT_EQ(std::memcmp(window.data(), whole.data() + begin, count * 4), 0)
            << Name(type) << " " << begin;
      }
    }
  }
}

TEST(StorageTypeTest, StoredNumbersStayInTheRangeOfTheirFormat) {
  for (const StorageType type : kAll) {
    const TensorFormat format = FormatOf(type);
    if (!IsQuantized(format.format)) continue;
    const Bytes block = RandomBlock(type, 3);
    const int64_t cols = BlockColumns(type), groups = cols / format.group;
    std::vector<int8_t> q(cols);
    std::vector<float> scales(groups), offsets(groups);
    DecodeQuantized(type, reinterpret_cast<const std::byte*>(block.data()), 0, absl::MakeSpan(q),
                    scales.data(), offsets.data());
    for (int8_t value : q) {
      if (format.format == WeightFormat::kInt8) continue;
      EXPECT_GE(value, format.has_offset ? 0 : -8);
      EXPECT_LE(value, format.has_offset ? 15 : 7);
    }
    for (float scale : scales) {
      const bool exact_half = F32FromF16(F16FromF32(scale)) == scale;
      EXPECT_TRUE(exact_half || !format.half_scales);
    }
    // From the second group on.
    if (groups < 2) continue;
    std::vector<int8_t> tail(cols - format.group);
    std::vector<float> tail_scales(groups - 1), tail_offsets(groups - 1);
    DecodeQuantized(type, reinterpret_cast<const std::byte*>(block.data()), format.group,
                    absl::MakeSpan(tail), tail_scales.data(), tail_offsets.data());
    EXPECT_TRUE(std::equal(tail.begin(), tail.end(), q.begin() + format.group));
    EXPECT_TRUE(std::equal(tail_scales.begin(), tail_scales.end(), scales.begin() + 1));
  }
}

}  // namespace
}  // namespace bellwether
