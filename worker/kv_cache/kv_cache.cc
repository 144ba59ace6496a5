#include "worker/kv_cache/kv_cache.h"

#include "common/status.h"
#include "common/step.h"

namespace bellwether {

absl::StatusOr<KvCache> KvCache::Create(const Shape& shape) {
  KvCache cache;
  cache.shape_ = shape;
  cache.head_bytes_ = 2 * kKvBlockTokens * shape.head_dim * SizeOf(shape.dtype);
  BW_ASSIGN_OR_RETURN(cache.buffer_,
                      AlignedBuffer::Allocate(shape.layers * shape.blocks * shape.heads * cache.head_bytes_));
  return cache;
}

kernels::KvHead KvCache::head(int64_t layer, int64_t head, const KvBlockId* table) const {
  return kernels::KvHead{
      .blocks = buffer_.data() + (layer * shape_.heads + head) * head_bytes_,
      .block_stride = shape_.layers * shape_.heads * head_bytes_,
      .table = table,
      .dtype = shape_.dtype,
      .head_dim = static_cast<int32_t>(shape_.head_dim),
  };
}

}  // namespace bellwether
