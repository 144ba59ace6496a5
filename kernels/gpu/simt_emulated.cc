#include "kernels/gpu/simt_emulated.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "absl/strings/str_cat.h"
#include "kernels/gpu/fragments.h"

namespace bellwether::gpu::emulated {

// The fma in double precision: the product is exact, and a sum that is not gets an odd last bit (round to
// odd), after which rounding to fp32 is as good as rounding once.
float FusedInDouble(float a, float b, float c) {
  const double product = static_cast<double>(a) * b;
  const double sum = product + c;
  if (!std::isfinite(sum)) return static_cast<float>(sum);
  const double part = sum - product;
  const double error = (product - (sum - part)) + (c - part);
  auto bits = std::bit_cast<uint64_t>(sum);
  if (error != 0 && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
  return static_cast<float>(std::bit_cast<double>(bits));
}

namespace {

struct ShuffleOperand {
  uint32_t value;
  int source;
  uint32_t result;
};

struct MmaOperand {
  float* c;
  const uint32_t* a;
  const uint32_t* b;
};

#if defined(__x86_64__)
__attribute__((target("fma"))) float FusedByInstruction(float a, float b, float c) {
  return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
const bool kHaveFma = __builtin_cpu_supports("fma");
#else
constexpr bool kHaveFma = false;
float FusedByInstruction(float a, float b, float c) { return FusedInDouble(a, b, c); }
#endif

void PerformShuffle(Block&, const Block::LaneOperands& lanes) {
  for (void* lane : lanes) {
    auto* operand = static_cast<ShuffleOperand*>(lane);
    operand->result = static_cast<ShuffleOperand*>(lanes[operand->source])->value;
  }
}

void PerformTranspose(Block&, const Block::LaneOperands& lanes) {
  uint16_t matrix[8][8];
  for (int i = 0; i < 32; ++i) std::memcpy(&matrix[i / 4][i % 4 * 2], lanes[i], 4);
  for (int i = 0; i < 32; ++i) {
    *static_cast<uint32_t*>(lanes[i]) = matrix[i % 4 * 2][i / 4] | uint32_t{matrix[i % 4 * 2 + 1][i / 4]}
                                                                       << 16;
  }
}

void PerformMma(Block& block, const Block::LaneOperands& lanes) {
  uint32_t pairs_a[16][8], pairs_b[8][8];
  float c[16][8];
  for (int i = 0; i < 32; ++i) {
    const auto& lane = *static_cast<MmaOperand*>(lanes[i]);
    PutFragmentA(i, lane.a, pairs_a);
    PutFragmentB(i, lane.b, pairs_b);
    PutFragmentC(i, lane.c, c);
  }
  TensorCoreRows(pairs_a).MultiplyAdd(block.tensor_core(), pairs_b, c);
  for (int i = 0; i < 32; ++i) TakeFragmentC(i, c, static_cast<MmaOperand*>(lanes[i])->c);
}

}  // namespace

uint32_t ShuffleWord(uint32_t value, int source, const char* word, const Where& where) {
  if (source < 0 || source >= 32) running.block->Fail(absl::StrCat(word, " from lane ", source), where);
  ShuffleOperand operand = {value, source, 0};
  running.block->WarpOperation(word, &operand, PerformShuffle, where);
  return operand.result;
}

uint32_t TransposeWord(uint32_t word, const Where& where) {
  running.block->WarpOperation("Transpose8x8", &word, PerformTranspose, where);
  return word;
}

void MmaStep(float* c, const uint32_t* a, const uint32_t* b, const Where& where) {
  MmaOperand operand = {c, a, b};
  running.block->WarpOperation("Mma", &operand, PerformMma, where);
}

float FusedMultiplyAdd(float a, float b, float c) {
  return kHaveFma ? FusedByInstruction(a, b, c) : FusedInDouble(a, b, c);
}

}  // namespace bellwether::gpu::emulated
