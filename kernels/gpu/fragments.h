#pragma once

#include <cstdint>
#include <cstring>

// Which lane of a warp holds what of the matrices of a tensor core step (m16n8k16; simt.h has the same in
// words), as functions of the host. A pair is two bf16 values that are neighbours along k, the first one low.

namespace bellwether::gpu {

// pairs[row][k / 2]
inline void PutFragmentA(int lane, const uint32_t* a, uint32_t (&pairs)[16][8]) {
  for (int i = 0; i < 4; ++i) pairs[lane / 4 + i % 2 * 8][lane % 4 + i / 2 * 4] = a[i];
}
// pairs[k / 2][column]
inline void PutFragmentB(int lane, const uint32_t* b, uint32_t (&pairs)[8][8]) {
  for (int i = 0; i < 2; ++i) pairs[lane % 4 + i * 4][lane / 4] = b[i];
}
inline void PutFragmentC(int lane, const float* c, float (&matrix)[16][8]) {
  std::memcpy(&matrix[lane / 4][lane % 4 * 2], c, 8);
  std::memcpy(&matrix[lane / 4 + 8][lane % 4 * 2], c + 2, 8);
}
inline void TakeFragmentC(int lane, const float (&matrix)[16][8], float* c) {
  std::memcpy(c, &matrix[lane / 4][lane % 4 * 2], 8);
  std::memcpy(c + 2, &matrix[lane / 4 + 8][lane % 4 * 2], 8);
}

}  // namespace bellwether::gpu
