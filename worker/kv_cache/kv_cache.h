#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/aligned_buffer.h"
#include "common/dtype.h"
#include "common/ids.h"
#include "kernels/kernels.h"

namespace bellwether {

// Keys and values of one worker: `blocks` KV blocks of 32 positions for each of its layers and KV heads.
// Which block belongs to whom is the coordinator's business. Memory is touched only where written: a block
// lies in one piece over all layers, so that few blocks take few (huge) pages.
class KvCache {
 public:
  struct Shape {
    int64_t layers = 0;
    int64_t heads = 0;  // KV heads of this worker
    int64_t head_dim = 0;
    int64_t blocks = 0;
    DType dtype = DType::kF32;
  };
  // ResourceExhausted if there is not enough memory.
  static absl::StatusOr<KvCache> Create(const Shape& shape);
  KvCache() = default;

  // The cache of one layer (counted from this worker's first) and head, for a sequence with this block table.
  kernels::KvHead head(int64_t layer, int64_t head, const KvBlockId* table) const;
  int64_t bytes() const { return buffer_.size(); }
  int64_t blocks() const { return shape_.blocks; }

 private:
  Shape shape_;
  int64_t head_bytes_ = 0;  // of one block and head
  AlignedBuffer buffer_;    // [blocks][layers][heads][head_bytes_]
};

}  // namespace bellwether
