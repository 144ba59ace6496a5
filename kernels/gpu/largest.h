#pragma once

// The largest values of rows: all that greedy and top-k sampling need of logits.

#include "kernels/gpu/simt.h"
#include "kernels/largest_value.h"

namespace bellwether::gpu {

struct LargestArgs {
  const float* x = nullptr;  // [rows][stride]
  int64_t stride = 0;
  int32_t cols = 0;
  int32_t count = 0;  // of each chunk, 1 to kLargestMax
  // [rows][chunks][count], largest first, the lowest column among equals
  kernels::LargestValue* out = nullptr;
};
constexpr int kLargestThreads = 256;
constexpr int kLargestSharedBytes = kLargestThreads / 32 * 8;

BW_DEVICE bool IsLarger(const kernels::LargestValue& a, const kernels::LargestValue& b) {
  return a.value > b.value || (a.value == b.value && a.column < b.column);
}

// Over the threads of a block, the same in all.
BW_DEVICE kernels::LargestValue LargestOfBlock(kernels::LargestValue best, kernels::LargestValue* shared) {
  BW_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) {
    const kernels::LargestValue other = {ShuffleXor(best.value, mask), ShuffleXor(best.column, mask)};
    if (IsLarger(other, best)) best = other;
  }
  SyncBlock();
  if (Lane() == 0) shared[Warp()] = best;
  SyncBlock();
  best = shared[0];
  for (int w = 1; w < kLargestThreads / 32; ++w) {
    if (IsLarger(shared[w], best)) best = shared[w];
  }
  return best;
}

// A thread keeps its columns of the chunk in registers, and each turn takes the largest of all away. What is
// no number counts as +infinity. Grid: x: chunks, y: rows.
BW_DEVICE void Largest(const LargestArgs& args) {
  constexpr int kKept = kernels::kLargestChunk / kLargestThreads;
  constexpr uint32_t kInfinity = 0x7f800000u;
  const float infinity = BitsFloat(kInfinity);
  LetNextKernelStart();
  WaitForPreviousKernel();
  auto* const shared = reinterpret_cast<kernels::LargestValue*>(SharedMemory());
  const float* const row = args.x + BlockY() * args.stride;
  const int first = BlockX() * kernels::kLargestChunk + ThreadIndex();
  float kept[kKept];
  BW_UNROLL
  for (int i = 0; i < kKept; ++i) {
    const int column = first + i * kLargestThreads;
    kept[i] = column < args.cols ? Load(row + column) : -infinity;
    if (!(kept[i] < infinity)) kept[i] = infinity;
  }
  kernels::LargestValue* const out =
      args.out + (static_cast<int64_t>(BlockY()) * GridX() + BlockX()) * args.count;
  for (int turn = 0; turn < args.count; ++turn) {
    kernels::LargestValue best = {-infinity, args.cols};
    BW_UNROLL
    for (int i = 0; i < kKept; ++i) {
      if (kept[i] > best.value) best = {kept[i], first + i * kLargestThreads};
    }
    best = LargestOfBlock(best, shared);
    BW_UNROLL
    for (int i = 0; i < kKept; ++i) {
      if (first + i * kLargestThreads == best.column) kept[i] = -infinity;
    }
    if (ThreadIndex() != 0) continue;
    const int32_t column = best.value == infinity    ? kernels::kNotFinite
                           : best.value == -infinity ? kernels::kNoColumn
                                                     : best.column;
    Store(out + turn, kernels::LargestValue{best.value, column});
  }
}

}  // namespace bellwether::gpu
