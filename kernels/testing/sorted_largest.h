#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/types/span.h"
#include "kernels/largest_value.h"

namespace bellwether::kernels {

// What DeviceOps::Largest gives for a row, by sorting: the `count` largest values of each chunk.
inline std::vector<LargestValue> SortedLargest(absl::Span<const float> row, int count) {
  std::vector<LargestValue> all;
  for (size_t begin = 0; begin < row.size(); begin += kLargestChunk) {
    std::vector<LargestValue> chunk;
    bool finite = true;
    for (size_t i = begin; i < std::min(row.size(), begin + kLargestChunk); ++i) {
      finite &= row[i] < INFINITY;
      if (row[i] > -INFINITY) chunk.push_back({row[i], static_cast<int32_t>(i)});
    }
    std::stable_sort(chunk.begin(), chunk.end(),
                     [](const auto& a, const auto& b) { return a.value > b.value; });
    chunk.resize(count, {-INFINITY, kNoColumn});
    if (!finite) chunk[0].column = kNotFinite;
    all.insert(all.end(), chunk.begin(), chunk.end());
  }
  return all;
}

}  // namespace bellwether::kernels
