#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {

// How a file stores the elements of a row: plain numbers, or blocks of columns with their scales (ggml's
// formats, whose bytes docs/formats.md describes).
enum class StorageType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  // ggml's before GGUF, with fp32 scales: of its first generation, and of ggjt v2.
  kQ4_0V1,
  kQ4_1V1,
  kQ4_0V2,
  kQ4_1V2,
  kQ8_0V2
};

std::string_view Name(StorageType type);  // "F32", "Q4_K" ...
int64_t BlockColumns(StorageType type);   // columns of one block; 1 for plain numbers
int64_t BlockBytes(StorageType type);     // a multiple of columns is stored in as many blocks
TensorFormat FormatOf(StorageType type);  // what it becomes: nothing is lost but of F64, rounded to fp32
inline int64_t RowBytes(StorageType type, int64_t cols) {
  return cols / BlockColumns(type) * BlockBytes(type);
}

// Columns [first_col, first_col + out.size()) of the row whose first byte is `row`, as floats: scale * q +
// offset, each operation rounded to fp32. `row` need not be aligned.
void DecodeFloats(StorageType type, const std::byte* row, int64_t first_col, absl::Span<float> out);

// The stored numbers of columns [first_col, first_col + q.size()), quantised types only. first_col is a
// multiple of the type's group; one scale (and offset, if the type has them) is written for each group that
// the columns touch.
void DecodeQuantized(StorageType type, const std::byte* row, int64_t first_col, absl::Span<int8_t> q,
                     float* scales, float* offsets);

}  // namespace bellwether
