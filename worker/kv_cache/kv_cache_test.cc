#include "worker/kv_cache/kv_cache.h"

#include <set>

#include "common/step.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(KvCacheTest, EveryBlockOfEveryLayerAndHeadHasItsPlace) {
  const KvCache::Shape shape = {.layers = 3, .heads = 2, .head_dim = 8, .blocks = 5, .dtype = DType::kBF16};
  const auto cache = KvCache::Create(shape);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const int64_t bytes = 2 * kKvBlockTokens * shape.head_dim * 2;  // keys and values of one head
  EXPECT_EQ(cache->bytes(), 3 * 2 * 5 * bytes);
  const std::byte* const first = cache->head(0, 0, nullptr).blocks;
  std::set<int64_t> places;
  for (int64_t block = 0; block < shape.blocks; ++block) {
    for (int64_t layer = 0; layer < shape.layers; ++layer) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const kernels::KvHead kv = cache->head(layer, head, nullptr);
        const int64_t place = kv.blocks + block * kv.block_stride - first;
        EXPECT_EQ(place % bytes, 0);
        // Few blocks in use touch little memory, in however many layers.
        EXPECT_EQ(place / (shape.layers * shape.heads * bytes), block);
        places.insert(place);
      }
    }
  }
  EXPECT_EQ(places.size(), 30u);
}

}  // namespace
}  // namespace bellwether
