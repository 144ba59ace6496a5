#pragma once

#include <cstdint>

namespace bellwether::kernels {

// One of the largest values of a chunk of a row, for who wants no more of the row.
struct LargestValue {
  float value = 0;
  int32_t column = -1;  // of the row
};
// Instead of a column: there are no more than those before it; the chunk has a NaN or +infinity, and nothing
// is said about the rest of it.
inline constexpr int32_t kNoColumn = -1, kNotFinite = -2;

inline constexpr int32_t kLargestChunk = 8192;  // columns, the last chunk may have fewer
inline constexpr int32_t kLargestMax = 64;      // values of a chunk, at most

}  // namespace bellwether::kernels
