#pragma once

#include <cstdint>

// How many rows of a step a worker works on at once: what it holds for them is bounded, and the planner
// counts it.

namespace bellwether {

// In a layer. Its weights come from memory once for each such block of rows: blocks of 512 would be no faster
// with bf16 weights and 4 % faster with int4, for twice the memory.
inline constexpr int64_t kLayerRowsMax = 256;
// Likewise on a GPU: enough to be bound by arithmetic.
inline constexpr int64_t kGpuLayerRowsMax = 2048;

// Of logits: with a vocabulary of 250,000 these are 64 MB.
inline constexpr int kLogitRowsMax = 64;

}  // namespace bellwether
