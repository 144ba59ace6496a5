#pragma once

#include <bit>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/tensor_core.h"
#include "kernels/gpu/tensor_core_bits.h"

// What a card's tensor cores are asked (tests/gpu/gpu_check.cc). tests/goldens/gpu/h200_outputs.txt has the
// answers of a card to these very cases: who changes them has to ask a card again.

namespace bellwether::gpu {

class CaseRandom {
 public:
  explicit CaseRandom(uint64_t seed) : state_(seed) {}
  uint32_t operator()() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(z >> 32);
  }

 private:
  uint64_t state_;
};

inline constexpr const char* kTensorCoreKinds[] = {"ordinary",    "wide exponents", "any exponent",
                                                   "subnormal",   "cancelling",     "overflowing",
                                                   "Inf and NaN", "any bits"};
inline constexpr int kTensorCoreKindCount = 8;

inline uint16_t RandomBF16(CaseRandom& random, int kind) {
  const uint32_t r = random();
  const auto with = [r](uint32_t exponent) { return static_cast<uint16_t>((r & 0x807fu) | exponent << 7); };
  const uint32_t high = r >> 16;
  switch (kind) {
    case 0:
      return with(120 + high % 8);
    case 1:
      return with(100 + high % 56);
    case 2:
      return with(high % 255);
    case 3:
      return with(high % 3);
    case 4:
      return high % 3 == 0 ? static_cast<uint16_t>(r & 0x8000u) : with(120 + high % 8);
    case 5:
      return with(185 + high % 6);
    case 6:
      if (high % 24 == 0) return static_cast<uint16_t>(0x7f80u | (r & 0x8000u));
      if (high % 24 == 1) return 0x7fc1;
      return with(120 + high % 8);
    default:
      return static_cast<uint16_t>(r);
  }
}

inline float RandomAccumulator(CaseRandom& random, int kind) {
  const uint32_t r = random();
  const auto with = [r](uint32_t exponent) {
    return std::bit_cast<float>((r & 0x807fffffu) | exponent << 23);
  };
  switch (kind) {
    case 0:
      return with(118 + (r >> 24) % 14);
    case 1:
      return with(90 + (r >> 24) % 76);
    case 3:
      return with((r >> 24) % 3);
    case 4:
      return r % 4 == 0 ? -0.0f : 0.0f;
    case 5:
      return with(248 + (r >> 24) % 6);
    case 6:
      return with(120);
    default:
      return std::bit_cast<float>(r);
  }
}

inline TensorCoreCase RandomTensorCoreCase(CaseRandom& random, int kind) {
  TensorCoreCase made;
  for (auto& row : made.a) {
    for (uint16_t& value : row) value = RandomBF16(random, kind);
  }
  for (auto& row : made.b) {
    for (uint16_t& value : row) value = RandomBF16(random, kind == 5 ? 0 : kind);
  }
  for (auto& row : made.c) {
    for (float& value : row) value = RandomAccumulator(random, kind);
  }
  if (kind == 4) {  // neighbours that take each other away
    for (int k = 0; k < 16; k += 2) {
      for (auto& row : made.a) row[k + 1] = random() % 2 == 0 ? row[k + 1] : row[k];
      for (auto& row : made.b)
        row[k + 1] = random() % 2 == 0 ? row[k + 1] : static_cast<uint16_t>(row[k] ^ 0x8000u);
    }
  }
  return made;
}

// Cases [0, count) of a kind.
inline std::vector<TensorCoreCase> TensorCoreCases(int kind, int count) {
  std::vector<TensorCoreCase> cases;
  CaseRandom random(1000 + static_cast<uint64_t>(kind));
  for (int i = 0; i < count; ++i) cases.push_back(RandomTensorCoreCase(random, kind));
  return cases;
}

// By the function, slowly.
inline TensorCoreResult ExpectedOutputs(const TensorCoreClass& numerics, const TensorCoreCase& one) {
  TensorCoreResult result;
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 8; ++column)
      result.values[row][column] = TensorCoreDot(numerics, one.a[row], one.b[column], one.c[row][column]);
  }
  return result;
}

// The golden keeps a hash of each of the parts in which a kind's 2,560 cases come.
inline constexpr int kTensorCoreParts = 8;
inline constexpr int kTensorCorePartCases = 320;

// FNV-1a over the bits of outputs, in order: what a golden keeps of them.
class OutputsHash {
 public:
  void Add(const TensorCoreResult& result) {
    for (const auto& row : result.values) {
      for (const float value : row) hash_ = (hash_ ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3u;
    }
  }
  std::string text() const { return absl::StrCat(absl::Hex(hash_, absl::kZeroPad16)); }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

// The hashes in a golden, part by part, kind after kind. Empty if it is not there.
inline std::vector<std::string> GoldenOutputs(const std::string& path) {
  std::vector<std::string> hashes;
  std::ifstream file(path);
  for (std::string hash; file >> hash;) hashes.push_back(hash);
  return hashes;
}

}  // namespace bellwether::gpu
