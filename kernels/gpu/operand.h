#pragma once

// Activations as tensor cores read them: rows rounded to bf16, in blocks of 8, in one of two orders. `k` is
// the packed column (weights.h), a multiple of 32 in all; rows are padded to 8.
//
//   fragments  [rows / 8][k / 32][lane][2 steps][2 words]
//              stream_matmul: a lane's B fragments of two steps are 16 bytes
//   pieces     [rows / 64][k / 32][8 blocks][4][8 rows][8 columns]
//              tile_matmul: core matrices of wgmma, 128 bytes each, and 64 rows of some columns are one
//              contiguous copy; rows are padded to 64
//
// That is the first limb (weights.h). Each further one that the weights want is an operand of its own, all of
// them equally far from each other.

#include "kernels/gpu/simt.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

enum class OperandOrder : int32_t { kFragments, kPieces };

constexpr int kPieceRows = 64;

// Where the pair of columns (k, k + 1), k even, of `row` stands, counted in words.
BW_DEVICE int64_t OperandWord(OperandOrder order, int64_t row, int64_t k, int64_t k_count) {
  const int g = static_cast<int>(row % 8), column = static_cast<int>(k % 32);
  if (order == OperandOrder::kPieces) {
    const int64_t block = (row / kPieceRows * (k_count / 32) + k / 32) * 8 + row % kPieceRows / 8;
    return block * 128 + column / 8 * 32 + g * 4 + column % 8 / 2;
  }
  return (row / 8 * (k_count / 32) + k / 32) * 128 + (g * 4 + column % 8 / 2) * 4 + column / 8;
}

// The next limbs of two values, which keep what these leave.
BW_DEVICE uint32_t TakeLimbs(float& low, float& high) {
  const uint32_t limbs = PackBF16(low, high);
  low -= BitsFloat(limbs << 16);
  high -= BitsFloat(limbs & 0xffff0000u);
  return limbs;
}

}  // namespace bellwether::gpu
