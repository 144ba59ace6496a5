#include "model/tokenizer/candidate_queue.h"

#include <cstdint>
#include <random>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using Entry = MergeEntry<int32_t>;

TEST(LaneQueue, GivesTheLowestOrderAndTheLeftmostOfEquals) {
  LaneQueue<int32_t> queue;
  EXPECT_TRUE(queue.empty());
  for (const int32_t left : {3, 7, 5, 1, 9}) queue.Push({.order = left < 6 ? 2 : 1, .left = left});
  std::vector<int32_t> lefts;
  while (!queue.empty()) lefts.push_back(queue.Pop().left);
  EXPECT_THAT(lefts, testing::ElementsAre(7, 9, 1, 3, 5));
}

// Whatever comes when: lower orders while a lane is read, entries to the left of those that were taken.
TEST(LaneQueue, GivesWhatAHeapGives) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    HeapQueue<int32_t> heap;
    LaneQueue<int32_t> lanes;
    int32_t pushed = 0;
    const auto push = [&](int32_t left) {
      // One of a kind, so that the answer is one.
      const Entry entry{.order = static_cast<int32_t>(random() % 5), .left = left, .right = pushed++};
      heap.Push(entry);
      lanes.Push(entry);
    };
    for (int32_t i = 0; i < 200; ++i) push(10 * i);
    while (!heap.empty()) {
      ASSERT_FALSE(lanes.empty());
      const Entry expected = heap.Pop(), got = lanes.Pop();
      ASSERT_EQ(std::tuple(got.order, got.left), std::tuple(expected.order, expected.left))
          << "seed " << seed;
      if (pushed < 600 && random() % 4 > 0) push(static_cast<int32_t>(random() % 2000));
    }
    EXPECT_TRUE(lanes.empty());
  }
}

}  // namespace
}  // namespace bellwether
