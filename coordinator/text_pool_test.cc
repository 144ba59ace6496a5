#include "coordinator/text_pool.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr size_t kLong = kShortTextBytes + 1;

// A task that holds its thread until it is let go.
struct Gate {
  absl::Notification entered, opened;
  std::function<void()> task() {
    return [this] {
      entered.Notify();
      opened.WaitForNotification();
    };
  }
};

TEST(TextPool, ALongTextWaitsForAsManyShortOnesAsAreAgreed) {
  std::string order;
  {
    Gate gate;
    TextPool pool({.threads = 1});
    ASSERT_TRUE(pool.TryPost(1, gate.task()));
    gate.entered.WaitForNotification();
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(pool.TryPost(kLong, [&] { order += 'L'; }));
    for (int i = 0; i < 3 * kShortsAhead; ++i)
      ASSERT_TRUE(pool.TryPost(kShortTextBytes, [&] { order += 's'; }));
    gate.opened.Notify();
  }
  const std::string shorts(kShortsAhead, 's');
  EXPECT_EQ(order, shorts + "L" + shorts + "L" + shorts);
}

TEST(TextPool, ShortTextsRunWhileLongOnesDo) {
  Gate first, second;
  TextPool pool({.threads = 2});
  ASSERT_TRUE(pool.TryPost(kLong, first.task()));
  ASSERT_TRUE(pool.TryPost(kLong, second.task()));
  first.entered.WaitForNotification();
  for (int i = 0; i < 10; ++i) {
    absl::Notification done;
    ASSERT_TRUE(pool.TryPost(1, [&] { done.Notify(); }));
    done.WaitForNotification();
  }
  EXPECT_FALSE(second.entered.HasBeenNotified()) << "one thread is for short texts alone";
  first.opened.Notify();
  second.entered.WaitForNotification();
  second.opened.Notify();
}

TEST(TextPool, RefusesMoreTasksAndMoreBytesThanMayWait) {
  Gate gate;
  TextPool pool({.threads = 1, .tasks_max = 2, .bytes_max = 100});
  ASSERT_TRUE(pool.TryPost(100, gate.task()));
  gate.entered.WaitForNotification();
  EXPECT_FALSE(pool.TryPost(101, [] {}));
  EXPECT_TRUE(pool.TryPost(60, [] {}));
  EXPECT_FALSE(pool.TryPost(41, [] {}));
  EXPECT_TRUE(pool.TryPost(40, [] {}));
  EXPECT_FALSE(pool.TryPost(0, [] {})) << "two wait";
  gate.opened.Notify();
}

TEST(TextPool, ATaskIsGoneWithWhatItHoldsOnceItHasRun) {
  TextPool pool({.threads = 1});
  auto text = std::make_shared<std::string>("long");
  const std::weak_ptr<std::string> watch = text;
  ASSERT_TRUE(pool.TryPost(1, [text = std::move(text)] {}));
  absl::Notification after;
  ASSERT_TRUE(pool.TryPost(1, [&] { after.Notify(); }));
  after.WaitForNotification();
  EXPECT_TRUE(watch.expired());
}

TEST(TextPool, TasksOfSeveralThreadsAllRun) {
  constexpr int kClients = 3, kTasks = 300;
  std::atomic<int> run{0};
  {
    TextPool pool({.threads = 3});
    std::vector<std::thread> clients;
    for (int client = 0; client < kClients; ++client) {
      clients.emplace_back([&] {
        for (int i = 0; i < kTasks; ++i) EXPECT_TRUE(pool.TryPost(i % 4 == 0 ? kLong : 1, [&run] { ++run; }));
      });
    }
    for (std::thread& client : clients) client.join();
  }
  EXPECT_EQ(run, kClients * kTasks);
}

}  // namespace
}  // namespace bellwether
