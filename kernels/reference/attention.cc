#include <algorithm>
#include <cstring>
#include <limits>

#include "common/exact_math.h"
#include "common/step.h"
#include "kernels/reference/reference.h"

namespace bellwether::kernels::reference {
namespace {

constexpr int kBlock = kKvBlockTokens;
constexpr int kTile = 64;  // positions between two updates of the running maximum and sum

float ReadElement(const std::byte* array, int64_t index, DType type) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, array + index * 4, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, array + index * 2, sizeof(bits));
  return type == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
}

void WriteElement(std::byte* array, int64_t index, DType type, float value) {
  if (type == DType::kF32) {
    std::memcpy(array + index * 4, &value, sizeof(value));
    return;
  }
  const uint16_t bits = type == DType::kBF16 ? BF16FromF32(value) : F16FromF32(value);
  std::memcpy(array + index * 2, &bits, sizeof(bits));
}

std::byte* KeysOf(const KvHead& head, int32_t position) {
  return head.blocks + head.table[position / kBlock] * head.block_stride;
}
std::byte* ValuesOf(const KvHead& head, int32_t position) {
  return KeysOf(head, position) + SizeOf(head.dtype) * head.head_dim * kBlock;
}
int64_t KeyIndex(int64_t d, int32_t position) { return d * kBlock + position % kBlock; }
int64_t ValueIndex(const KvHead& head, int64_t d, int32_t position) {
  return position % kBlock * int64_t{head.head_dim} + d;
}

float ExpF32(float x) { return static_cast<float>(Exp(x)); }

void AttendOne(const KvHead& head, const AttentionQuery& query, float scale) {
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
  float numerator[kHeadDimMax] = {};
  for (int32_t tile = 0; tile <= query.position; tile += kTile) {
    const int32_t end = std::min(tile + kTile, query.position + 1);
    float scores[kTile];
    float new_maximum = maximum;
    for (int32_t p = tile; p < end; ++p) {
      float dot = 0;
      for (int d = 0; d < head.head_dim; ++d) {
        dot += query.q[d] * ReadElement(KeysOf(head, p), KeyIndex(d, p), head.dtype);
      }
      scores[p - tile] = scale * dot + query.alibi_slope * static_cast<float>(p);
      new_maximum = std::max(new_maximum, scores[p - tile]);
    }
    const float correction = ExpF32(maximum - new_maximum);
    maximum = new_maximum;
    sum *= correction;
    for (int d = 0; d < head.head_dim; ++d) numerator[d] *= correction;
    for (int32_t p = tile; p < end; ++p) {
      const float weight = ExpF32(scores[p - tile] - maximum);
      sum += weight;
      for (int d = 0; d < head.head_dim; ++d) {
        numerator[d] += weight * ReadElement(ValuesOf(head, p), ValueIndex(head, d, p), head.dtype);
      }
    }
  }
  for (int d = 0; d < head.head_dim; ++d) query.out[d] = numerator[d] / sum;
}

}  // namespace

void WriteKv(const KvHead& head, int32_t position, const float* key, const float* value) {
  for (int d = 0; d < head.head_dim; ++d) {
    WriteElement(KeysOf(head, position), KeyIndex(d, position), head.dtype, key[d]);
    WriteElement(ValuesOf(head, position), ValueIndex(head, d, position), head.dtype, value[d]);
  }
}

void Attention(const KvHead& head, const AttentionQuery* queries, int count, float scale) {
  for (int i = 0; i < count; ++i) AttendOne(head, queries[i], scale);
}

}  // namespace bellwether::kernels::reference
