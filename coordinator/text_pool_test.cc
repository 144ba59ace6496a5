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

TEST(TextPool, OfLongTextsTheShortestGoesFirstButTheOldestIsNotForgotten) {
  std::vector<size_t> order;
  {
    Gate gate;
    TextPool pool({.threads = 1});
    ASSERT_TRUE(pool.TryPost(1, gate.task()));
    gate.entered.WaitForNotification();
    const auto post = [&](size_t bytes) {
      ASSERT_TRUE(pool.TryPost(bytes, [&order, bytes] { order.push_back(bytes); }));
    };
    post(3 * kLong);
    for (int i = 0; i < 2 * kShortsAhead; ++i) post(i % 2 == 0 ? 2 * kLong : kLong);
    gate.opened.Notify();
  }
  std::vector<size_t> expected(kShortsAhead, kLong);
  expected.push_back(3 * kLong);
  expected.insert(expected.end(), kShortsAhead, 2 * kLong);
  EXPECT_EQ(order, expected);
}

// A text of 17 kB once waited until ten of 3 MB had been read, 46 s.
TEST(TextPool, ALongTextThatRunsGivesWayToMuchShorterOnes) {
  constexpr size_t kBytes = 100 * kLong;
  std::string order;
  {
    Gate gate;
    TextPool pool({.threads = 1});
    const auto post = [&](size_t bytes, char name) {
      ASSERT_TRUE(pool.TryPost(bytes, [&order, name] { order += name; }));
    };
    ASSERT_TRUE(pool.TryPost(kBytes, [&] {
      gate.task()();
      for (int i = 0; i < 4; ++i) {
        pool.GiveWay();
        order += '.';
      }
    }));
    gate.entered.WaitForNotification();
    for (int i = 0; i < 9; ++i) post(kBytes, 'L');
    post(kBytes / 2 + 1, 'h');
    post(kLong, 'm');
    post(1, 's');
    gate.opened.Notify();
  }
  EXPECT_EQ(order, "s.m...hLLLLLLLLL") << "what is more than half as long waits for its turn";
}

// What gave way to others is itself let through in the end, and so are those that it gave way to.
TEST(TextPool, ATextGivesWayToAsManyBytesAsItHas) {
  constexpr size_t kBytes = 16 * kLong;
  std::string order;
  {
    Gate gate;
    TextPool pool({.threads = 1});
    const auto give_way = [&](char name) {
      for (int i = 0; i < 100; ++i) pool.GiveWay();
      order += name;
    };
    ASSERT_TRUE(pool.TryPost(kBytes, [&] {
      gate.task()();
      give_way('L');
    }));
    gate.entered.WaitForNotification();
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(pool.TryPost(kBytes / 2, [&] { give_way('h'); }));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(pool.TryPost(kBytes / 4, [&] { give_way('q'); }));
    gate.opened.Notify();
  }
  EXPECT_EQ(order, "qqqqLqhh");
}

TEST(TextPool, WhoIsNotOfThePoolGivesNoWay) {
  Gate gate;
  absl::Notification done;
  std::atomic<bool> run{false};  // by the pool, at its end
  TextPool pool({.threads = 1}), other({.threads = 1});
  ASSERT_TRUE(pool.TryPost(kLong, gate.task()));
  gate.entered.WaitForNotification();
  ASSERT_TRUE(pool.TryPost(1, [&] { run = true; }));
  pool.GiveWay();
  ASSERT_TRUE(other.TryPost(kLong, [&] {
    pool.GiveWay();
    done.Notify();
  }));
  done.WaitForNotification();
  EXPECT_FALSE(run);
  gate.opened.Notify();
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
