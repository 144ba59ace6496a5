#include "common/mutex.h"

#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "gtest/gtest.h"

// ThreadSanitizer has versions of its own of what follows; to be called instead would hide waits from it.
#ifndef ABSL_HAVE_THREAD_SANITIZER
namespace {
std::atomic<int> waits{0}, waits_by_another_clock{0};
}  // namespace

// In the place of the C library's, which they call: which clock does a wait of ours follow?
extern "C" int pthread_cond_clockwait(pthread_cond_t* cond, pthread_mutex_t* mutex, clockid_t clock,
                                      const timespec* end) {
  ++waits;
  if (clock != CLOCK_MONOTONIC) ++waits_by_another_clock;
  static const auto next =
      reinterpret_cast<decltype(&pthread_cond_clockwait)>(dlsym(RTLD_NEXT, "pthread_cond_clockwait"));
  return next(cond, mutex, clock, end);
}
extern "C" int pthread_cond_timedwait(pthread_cond_t* cond, pthread_mutex_t* mutex, const timespec* end) {
  ++waits_by_another_clock;
  static const auto next =
      reinterpret_cast<decltype(&pthread_cond_timedwait)>(dlsym(RTLD_NEXT, "pthread_cond_timedwait"));
  return next(cond, mutex, end);
}
#endif

namespace bellwether {
namespace {

class Box {
 public:
  void Put(int value) {
    MutexLock lock(&mutex_);
    value_ = value;
  }
  void WaitFor(int value) {
    MutexLock lock(&mutex_);
    mutex_.Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return value_ == value; });
  }
  bool WaitFor(int value, absl::Duration limit) {
    MutexLock lock(&mutex_);
    return mutex_.AwaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return value_ == value; }, limit);
  }
  // What it puts is seen by others although it only waits from then on.
  void PutAndWaitFor(int put, int value) {
    MutexLock lock(&mutex_);
    value_ = put;
    mutex_.Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return value_ == value; });
  }

 private:
  Mutex mutex_;
  int value_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(MutexTest, AWaitEndsWhenTheConditionHolds) {
  Box box;
  std::thread other([&] {
    box.WaitFor(1);
    box.Put(2);
    EXPECT_TRUE(box.WaitFor(3, absl::InfiniteDuration()));
    box.Put(4);
  });
  box.PutAndWaitFor(1, 2);
  box.PutAndWaitFor(3, 4);
  other.join();
}

TEST(MutexTest, EveryWaiterLooksAtItsOwnCondition) {
  Box box;
  constexpr int kThreads = 4;
  std::vector<std::thread> others;
  for (int i = 1; i <= kThreads; ++i) {
    others.emplace_back([&box, i] {
      box.WaitFor(i);
      box.Put(i + 1);
    });
  }
  box.Put(1);
  box.WaitFor(kThreads + 1);
  for (std::thread& other : others) other.join();
}

TEST(MutexTest, ATimedWaitEndsAfterItsLimit) {
  Box box;
  EXPECT_FALSE(box.WaitFor(1, absl::Milliseconds(1)));
  EXPECT_FALSE(box.WaitFor(1, absl::ZeroDuration()));
  EXPECT_FALSE(box.WaitFor(1, -absl::InfiniteDuration()));
  EXPECT_TRUE(box.WaitFor(0, absl::ZeroDuration()));
}

#ifndef ABSL_HAVE_THREAD_SANITIZER
// The system's clock was set back by 10 s: heartbeats came 10 s later, and the epoch ended.
TEST(MutexTest, ATimedWaitFollowsTheMonotonicClock) {
  Box box;
  waits = waits_by_another_clock = 0;
  EXPECT_FALSE(box.WaitFor(1, absl::Milliseconds(1)));
  EXPECT_GE(waits, 1);
  EXPECT_EQ(waits_by_another_clock, 0);
}
#endif

}  // namespace
}  // namespace bellwether
