#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace bellwether {

// Where the rows of a tensor, counted in canonical order (checkpoint.h), lie in the file. Rows come in heads
// of `head_rows`; heads may stand apart (a fused query-key-value tensor) and pairs may be interleaved (GGUF).
// Or a list says it of each row.
struct RowMap {
  int64_t head_rows = 1;
  int64_t head_stride = 1;   // rows of the file from one head to the next
  int64_t first = 0;         // row of the file where head 0 begins
  bool interleaved = false;  // rows i and i + head_rows / 2 of a head stand at 2 i and 2 i + 1

  std::shared_ptr<const std::vector<int32_t>> order;  // instead of all these, unless null

  int64_t Source(int64_t row) const {
    if (order != nullptr) return (*order)[row];
    int64_t within = row % head_rows;
    if (interleaved) {
      const int64_t half = head_rows / 2;
      within = within < half ? 2 * within : 2 * (within - half) + 1;
    }
    return first + row / head_rows * head_stride + within;
  }
};

}  // namespace bellwether
