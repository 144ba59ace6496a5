#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/row_map.h"
#include "model/checkpoint/storage_type.h"

namespace bellwether {

// Bytes of a mapped file.
struct FilePiece {
  std::shared_ptr<const FileMapping> file;
  uint64_t offset = 0;
  uint64_t bytes = 0;

  absl::Span<const std::byte> data() const { return file->bytes().subspan(offset, bytes); }
};

// A matrix as the tools of GPTQ store it (docs/formats.md): integers of a few bits in words of 32, and a
// scale and a zero for each group of inputs. weight = scale * (integer - zero), for output n and input k:
//   weights  int32 [inputs * bits / 32, outputs]; the words of a column are one stream of bits, from the
//            lowest of the first word, and integer k has the bits from k * bits on
//   zeros    int32 [groups, outputs * bits / 32]; likewise along a row
//   scales   [groups, outputs]
//   index    int32 [inputs], the group of each input, where these do not follow each other ("act-order": the
//            inputs were quantised by falling activation)
// All lie in their files row after row without gaps. AWQ packs integers along the outputs:
//   weights  int32 [inputs, outputs / 8], 4 bits each; the eight of a word are outputs 0, 2, 4, 6, 1, 3, 5, 7
//            from the lowest bits on, in `zeros` too
enum class LinearPacking : uint8_t { kGptq, kAwq };
struct QuantizedLinear {
  LinearPacking packing = LinearPacking::kGptq;
  FilePiece weights, zeros, scales;
  FilePiece index;                             // its file is null where input k is of group k / group
  StorageType scale_type = StorageType::kF16;  // plain numbers
  int bits = 4;                                // 2, 3, 4 or 8
  int64_t inputs = 0;                          // inputs * bits is a multiple of 32
  int64_t outputs = 0;                         // likewise
  int64_t group = 128;                         // inputs that share a scale, a multiple of 16 or all of them
  int zero_shift = 0;                          // is added to every stored zero
  bool symmetric = false;                      // every zero is 2^(bits - 1), or reading fails
  std::string source;                          // for messages
  // What `index` holds. Every group has `group` inputs but for the last, which may have fewer.
  std::vector<int32_t> group_index;
  // The input of each column as it is read; null: column k is input k.
  std::shared_ptr<const std::vector<int32_t>> input_order;
  // Set by the first zero that programs read differently, which is logged; all of a checkpoint share it.
  std::shared_ptr<std::atomic<bool>> warned;
};

// The inputs by their groups, where `index` is there: read in this order, column k is of group k / group.
std::vector<int32_t> OrderByGroup(const QuantizedLinear& linear);

// What it becomes: int4 (2 to 4 bits) or int8 with the stored integers, and unless it is symmetric offsets of
// -scale * zero. Groups longer than 128 inputs become several with the same scale. fp32 where the groups are
// not of columns that follow each other.
TensorFormat FormatOf(const QuantizedLinear& linear);
// "GPTQ 4 bits, groups of 128 ...": what, besides the bytes, decides the values.
std::string Describe(const QuantizedLinear& linear);

// Whether every field of the stored zeros is `value`; reads no further than the first that is not.
bool AllZerosAre(const QuantizedLinear& linear, int value);

// As Checkpoint's; row r of the window is output rows.Source(r).
absl::Status ReadFloats(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window,
                        absl::Span<float> out);
absl::StatusOr<QuantizedRows> ReadQuantized(const QuantizedLinear& linear, const RowMap& rows,
                                            const TensorWindow& window);

}  // namespace bellwether
