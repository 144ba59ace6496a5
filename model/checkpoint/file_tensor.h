#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bellwether {

// The most dimensions a tensor of a file may have.
inline constexpr size_t kFileTensorRankMax = 8;
// The most tensors that a file may hold, many times what the largest models have: names and entries of tables
// take memory that the file pays for with a few bytes each.
inline constexpr size_t kFileTensorsMax = size_t{1} << 17;

// A tensor as a file's own table describes it.
struct FileTensor {
  std::string name;
  std::string dtype;  // "F32", "BF16", "I64" ..., in the words of safetensors
  std::vector<int64_t> shape;
  // Elements from one index to the next of each dimension; empty: row after row without gaps.
  std::vector<int64_t> strides;
  uint64_t offset = 0;  // of the first element, from the start of the file
  uint64_t bytes = 0;   // from there to the end of the last element
};

}  // namespace bellwether
