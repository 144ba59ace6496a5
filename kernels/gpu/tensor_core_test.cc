#include "kernels/gpu/tensor_core.h"

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "gtest/gtest.h"

namespace bellwether::gpu {
namespace {

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

// One record of mma_bf16_cases.bin.
struct Case {
  uint16_t a[16];
  uint16_t b[16];
  float c;
  float hopper;
  float ampere;
};
static_assert(sizeof(Case) == 76);

// Computed by a public simulator of tensor cores that was checked against the hardware.
TEST(TensorCore, GivesTheBitsOfHopperAndAmpere) {
  std::ifstream file("../shared/data/mma_bf16_cases.bin", std::ios::binary);
  if (!file) GTEST_SKIP() << "../shared/data/mma_bf16_cases.bin is not here";
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(bytes.size(), 8000 * sizeof(Case));
  std::vector<Case> cases(8000);
  std::memcpy(cases.data(), bytes.data(), bytes.size());
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

}  // namespace
}  // namespace bellwether::gpu
