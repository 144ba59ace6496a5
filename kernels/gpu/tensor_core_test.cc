#include "kernels/gpu/tensor_core.h"

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/dtype.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/emulated_gpu.h"
#include "kernels/gpu/testing/kernel_coverage.h"
#include "kernels/gpu/testing/tensor_core_cases.h"

namespace bellwether::gpu {
namespace {

[[maybe_unused]] const auto* const coverage = CheckCoverage("tensor_core_test");

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

// One step; every value must be a bf16. Products that are not given are 0 * 0.
struct Step {
  float c = 0;
  std::vector<std::pair<float, float>> products;

  uint32_t On(const TensorCoreClass& numerics) const {
    uint16_t a[16] = {}, b[16] = {};
    for (size_t i = 0; i < products.size(); ++i) {
      a[i] = BF16FromF32(products[i].first);
      b[i] = BF16FromF32(products[i].second);
    }
    return Bits(TensorCoreDot(numerics, a, b, c));
  }
  uint32_t OnHopper() const { return On(kHopperTensorCore); }
};

Step Sixteen(float c, float a, float b) {
  Step step = {c, {}};
  step.products.resize(16, {a, b});
  return step;
}

TEST(TensorCore, RoundsOnceAndTowardZero) {
  EXPECT_EQ((Step{1, {{0x1p-12f, 0x1p-12f}}}.OnHopper()), Bits(1.0f));
  // Two that are half a unit each make one.
  EXPECT_EQ((Step{1, {{0x1p-12f, 0x1p-12f}, {0x1p-12f, 0x1p-12f}}}.OnHopper()), Bits(1.0f + 0x1p-23f));
  EXPECT_EQ((Step{-1, {{-0x1p-12f, 0x1p-12f}}}.OnHopper()), Bits(-1.0f));
  EXPECT_EQ((Step{-1, {{0x1p-12f, 0x1p-12f}}}.OnHopper()), Bits(-1.0f + 0x1p-24f));
}

TEST(TensorCore, CutsEveryTermBelowTheLargest) {
  // Hopper keeps 2^-25 of 1, Ampere 2^-24.
  EXPECT_EQ(Sixteen(1, 0x1p-12f, 0x1p-13f).OnHopper(), Bits(1 + 0x1p-21f));
  EXPECT_EQ(Sixteen(1, 0x1p-12f, 0x1p-13f).On(kAmpereTensorCore), Bits(1.0f));
  EXPECT_EQ(Sixteen(1, 0x1p-13f, 0x1p-13f).OnHopper(), Bits(1.0f));
  // A product's exponent is that of its factors, not its own: 1.5 * 1.5 counts as 2^0.
  EXPECT_EQ((Step{0x1p-25f, {{1.5f, 1.5f}, {-2.25f, 1}}}.OnHopper()), Bits(0.0f));
  EXPECT_EQ((Step{0x1p-25f, {{1.5f, 1.5f}, {-1.125f, 1}, {-1.125f, 1}}}.OnHopper()), Bits(0x1p-25f));
}

TEST(TensorCore, CancelsExactly) {
  EXPECT_EQ((Step{0, {{0x1p100f, 1}, {1, 1}, {-0x1p100f, 1}}}.OnHopper()), Bits(0.0f));
  // Beyond fp32's range in the middle.
  EXPECT_EQ((Step{-0x1p127f, {{0x1p64f, 0x1p63f}, {0x1p64f, 0x1p63f}}}.OnHopper()), Bits(0x1p127f));
}

TEST(TensorCore, AmpereTakesTwoStepsOfEight) {
  Step step = {1, {}};
  step.products.resize(8, {0x1p-12f, 0x1p-13f});  // each below what Hopper's sum of 16 keeps beside 2^2
  step.products.resize(15, {0, 0});
  step.products.push_back({4, 1});
  EXPECT_EQ(step.OnHopper(), Bits(5.0f));
  EXPECT_EQ(step.On({25, -133, 8}), Bits(5.0f));
  step.products.resize(8);
  EXPECT_EQ(step.On({25, -133, 8}), Bits(1 + 0x1p-22f));
}

TEST(TensorCore, KeepsSubnormals) {
  EXPECT_EQ((Step{0, {{0x1p-100f, 0x1p-40f}}}.OnHopper()), 1u << 9);
  EXPECT_EQ((Step{0x1p-149f, {{0x1p-130f, 1}}}.OnHopper()), (1u << 19) + 1);  // a subnormal bf16
  EXPECT_EQ((Step{0, {{0x1p-130f, 0x1p-130f}}}.OnHopper()), 0u);
  // The accumulator's zero holds the largest exponent at -133, so 2^-158 is the least that is kept.
  EXPECT_EQ(Sixteen(0, 0x1p-80f, 0x1p-72f).OnHopper(), Bits(0x1p-148f));
}

TEST(TensorCore, OverflowsToInfinity) {
  EXPECT_EQ((Step{0, {{0x1p100f, 0x1p28f}}}.OnHopper()), Bits(kInfinity));
  EXPECT_EQ((Step{-0x1p127f, {{-0x1p127f, 1}}}.OnHopper()), Bits(-kInfinity));
  // Cut, not rounded up to infinity.
  EXPECT_EQ((Step{0x1.fffffep127f, {{0x1p102f, 1}}}.OnHopper()), Bits(0x1.fffffep127f));
}

TEST(TensorCore, HasOneNanAndOneZero) {
  constexpr uint32_t kNan = 0x7fffffffu;
  EXPECT_EQ((Step{0, {{kInfinity, 0}}}.OnHopper()), kNan);
  EXPECT_EQ((Step{-kInfinity, {{kInfinity, 1}}}.OnHopper()), kNan);
  EXPECT_EQ((Step{__builtin_nanf("1"), {}}.OnHopper()), kNan);
  EXPECT_EQ((Step{1, {{__builtin_nanf(""), 0}}}.On(kAmpereTensorCore)), kNan);
  EXPECT_EQ((Step{0x1p127f, {{-kInfinity, 1}}}.OnHopper()), Bits(-kInfinity));
  EXPECT_EQ((Step{-0.0f, {{-0.0f, 1}}}.OnHopper()), 0u);
}

// One record of mma_bf16_cases.bin.
struct Case {
  uint16_t a[16];
  uint16_t b[16];
  float c;
  float hopper;
  float ampere;
};
static_assert(sizeof(Case) == 76);

std::vector<Case> CasesIn(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<Case> cases(bytes.size() / sizeof(Case));
  std::memcpy(cases.data(), bytes.data(), cases.size() * sizeof(Case));
  return cases;
}

// Computed by a public simulator of tensor cores that was checked against the hardware.
TEST(TensorCore, GivesTheBitsOfHopperAndAmpere) {
  std::vector<Case> cases = CasesIn("tests/goldens/gpu/mma_bf16_cases.bin");
  ASSERT_EQ(cases.size(), 800u);
  // All that there are of them, where they are.
  const std::vector<Case> more = CasesIn("../shared/data/mma_bf16_cases.bin");
  ASSERT_TRUE(more.empty() || more.size() == 8000u);
  cases.insert(cases.end(), more.begin(), more.end());
  int differ = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& x = cases[i];
    const uint32_t hopper = Bits(TensorCoreDot(kHopperTensorCore, x.a, x.b, x.c));
    const uint32_t ampere = Bits(TensorCoreDot(kAmpereTensorCore, x.a, x.b, x.c));
    if ((hopper != Bits(x.hopper) || ampere != Bits(x.ampere)) && ++differ <= 10)
      ADD_FAILURE() << "case " << i << std::hex << " hopper " << hopper << " not " << Bits(x.hopper)
                    << ", ampere " << ampere << " not " << Bits(x.ampere);
  }
  EXPECT_EQ(differ, 0);
}

// The answers of a card to the cases that gpu_check makes: an eighth of them here, the others where there is
// a card. A change of the function or of the cases that no card has seen is found.
TEST(TensorCore, GivesTheBitsThatAnH200Gave) {
  const std::vector<std::string> golden = GoldenOutputs("tests/goldens/gpu/h200_outputs.txt");
  ASSERT_EQ(golden.size(), size_t{kTensorCoreKindCount} * kTensorCoreParts);
  for (int kind = 0; kind < kTensorCoreKindCount; ++kind) {
    OutputsHash hash;
    for (const TensorCoreCase& one : TensorCoreCases(kind, kTensorCorePartCases))
      hash.Add(ExpectedOutputs(kHopperTensorCore, one));
    EXPECT_EQ(hash.text(), golden[kind * kTensorCoreParts]) << kTensorCoreKinds[kind];
  }
}

// ---- Whole tiles against the definition

struct Tile {
  uint32_t a[16][8];
  uint32_t b[8][8];
  float c[16][8];
};

// bf16 bits and fp32 bits of one kind of numbers.
class TileMaker {
 public:
  explicit TileMaker(int kind) : kind_(kind), random_(kind + 1) {}

  Tile Make() {
    Tile tile;
    for (auto& row : tile.a)
      for (uint32_t& pair : row) pair = BF16() | BF16() << 16;
    for (auto& row : tile.b)
      for (uint32_t& pair : row) pair = BF16() | BF16() << 16;
    for (auto& row : tile.c)
      for (float& value : row)
        value = std::bit_cast<float>(BF16() << 16 | static_cast<uint32_t>(random_() & 0xffffu));
    if (kind_ == kLargest && random_() % 2 == 0) Negate(tile);
    if (kind_ != kCancelling) return tile;
    // The second half of k takes the first one away, but for a little.
    for (auto& row : tile.a)
      for (int i = 4; i < 8; ++i) row[i] = row[i - 4] ^ 0x80008000u;
    for (int i = 4; i < 8; ++i)
      for (int j = 0; j < 8; ++j) tile.b[i][j] = tile.b[i - 4][j] ^ (random_() % 4 == 0 ? 1u : 0u);
    for (auto& row : tile.c)
      for (float& value : row) value *= 0x1p-20f;
    return tile;
  }

  enum Kind { kOrdinary, kWide, kCancelling, kSubnormal, kSparse, kLargest, kSpecial, kAny, kKinds };

 private:
  static void Negate(Tile& tile) {
    for (auto& row : tile.a)
      for (uint32_t& pair : row) pair ^= 0x80008000u;
    for (auto& row : tile.c)
      for (float& value : row) value = -value;
  }
  uint32_t WithExponent(int low, int high) {
    const auto random = static_cast<uint32_t>(random_());
    return (random & 0x807fu) | (low + random / 65536 % (high - low + 1)) << 7;
  }
  uint32_t BF16() {
    switch (kind_) {
      case kWide:
        return WithExponent(87, 167);
      case kSubnormal:
        return random_() % 2 == 0 ? WithExponent(0, 1) : WithExponent(0, 127);
      case kSparse:
        return random_() % 4 != 0 ? random_() & 0x8000u : WithExponent(120, 134);
      case kLargest:  // seventeen terms of nearly 4 * 2^0 add up to more than 32 bits hold with a sign
        return (random_() % 128 == 0 ? 0x8000u : 0u) | 0x3fffu;
      case kSpecial:
        return random_() % 16 == 0 ? WithExponent(255, 255) & (random_() % 2 == 0 ? 0xff80u : 0xffffu)
                                   : WithExponent(0, 254);
      case kAny:
        return random_() & 0xffffu;
      default:
        return WithExponent(120, 130);
    }
  }
  int kind_;
  std::mt19937 random_;
};

TEST(TensorCore, TilesAreEqualToTheDefinition) {
  constexpr int kTiles = 600;  // 128 outputs each, for 8 kinds and 2 classes: 1.2 million
  for (int kind = 0; kind < TileMaker::kKinds; ++kind) {
    TileMaker maker(kind);
    for (int i = 0; i < kTiles; ++i) {
      const Tile tile = maker.Make();
      for (const TensorCoreClass& numerics : {kHopperTensorCore, kAmpereTensorCore}) {
        float c[16][8];
        std::memcpy(c, tile.c, sizeof(c));
        TensorCoreRows(tile.a).MultiplyAdd(numerics, tile.b, c);
        for (int row = 0; row < 16; ++row) {
          uint16_t a[16];
          std::memcpy(a, tile.a[row], sizeof(a));
          for (int column = 0; column < 8; ++column) {
            uint16_t b[16];
            for (int k = 0; k < 8; ++k) std::memcpy(b + 2 * k, &tile.b[k][column], 4);
            ASSERT_EQ(Bits(c[row][column]), Bits(TensorCoreDot(numerics, a, b, tile.c[row][column])))
                << "kind " << kind << " tile " << i << " row " << row << " column " << column;
          }
        }
      }
    }
  }
}

// The kernel that a card is checked with asks it for what the function says.
TEST(TensorCore, TheCheckOfACardAsksForTheFunction) {
  EmulatedGpu gpu;
  TestRandom random(1);
  std::vector<TensorCoreCase> cases(3);
  for (TensorCoreCase& c : cases) {
    for (auto& row : c.a) {
      for (uint16_t& value : row) value = BF16FromF32(random.Wide());
    }
    for (auto& column : c.b) {
      for (uint16_t& value : column) value = BF16FromF32(random.Wide());
    }
    for (auto& row : c.c) {
      for (float& value : row) value = random.Wide();
    }
  }
  auto* results = gpu.Put(std::vector<TensorCoreResult>(cases.size()));
  for (const Kernel kernel : {Kernel::tensor_core_mma, Kernel::tensor_core_wgmma}) {
    if (kernel == Kernel::tensor_core_wgmma && !gpu.info().hopper) continue;
    gpu.Launch(kernel, {.grid_x = 2, .threads = 128, .shared_bytes = kTensorCoreBitsSharedBytes},
               TensorCoreBitsArgs{
                   .cases = gpu.Put(cases), .results = results, .count = static_cast<int32_t>(cases.size())});
    const std::vector<TensorCoreResult> seen = gpu.Get(results, static_cast<int64_t>(cases.size()));
    for (size_t i = 0; i < cases.size(); ++i) {
      const TensorCoreResult expected = ExpectedOutputs(gpu.tensor_core(), cases[i]);
      EXPECT_EQ(std::memcmp(&seen[i], &expected, sizeof(expected)), 0)
          << kKernels[static_cast<int>(kernel)].name << ", case " << i;
    }
  }
}

}  // namespace
}  // namespace bellwether::gpu
