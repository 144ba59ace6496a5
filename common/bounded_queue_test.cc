#include "common/bounded_queue.h"

#include <memory>
#include <thread>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(BoundedQueue, IsAFifoWithALimit) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  EXPECT_TRUE(queue.Push(std::make_unique<int>(2)));
  EXPECT_FALSE(queue.TryPush(std::make_unique<int>(3))) << "full";
  EXPECT_EQ(**queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(4)));
  EXPECT_EQ(**queue.Pop(), 2);
  EXPECT_EQ(**queue.Pop(), 4);
}

TEST(BoundedQueue, PopGivesUpAfterItsTimeout) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.Pop(absl::Milliseconds(1)), std::nullopt);
  EXPECT_EQ(queue.Pop(-absl::Seconds(1)), std::nullopt) << "a time that has passed";
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_EQ(queue.Pop(absl::ZeroDuration()), 1);
}

TEST(BoundedQueue, WaitingEndsByTheOtherSideAndByClosing) {
  BoundedQueue<int> queue(1);
  int64_t sum = 0;
  std::thread popping([&] {
    while (const std::optional<int> item = queue.Pop()) sum += *item;
  });
  for (int i = 1; i <= 10000; ++i) ASSERT_TRUE(queue.Push(i));
  queue.Close();
  popping.join();
  EXPECT_EQ(sum, 50005000) << "what was queued when it closed is still popped";
  EXPECT_TRUE(queue.closed());
  EXPECT_FALSE(queue.Push(1));
  EXPECT_FALSE(queue.TryPush(1));

  BoundedQueue<int> full(1);
  ASSERT_TRUE(full.Push(1));
  bool pushed = true;
  std::thread pushing([&] { pushed = full.Push(2); });
  full.Close();
  pushing.join();
  EXPECT_FALSE(pushed);
}

}  // namespace
}  // namespace bellwether
