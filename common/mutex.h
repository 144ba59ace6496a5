#pragma once

#include <pthread.h>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace bellwether {

// A mutex with conditions to wait for, annotated for clang's -Wthread-safety. Its timed wait follows the
// monotonic clock: absl's follows the system's, and when that is set back a heartbeat comes too late.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  ~Mutex();
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION();
  void Unlock() ABSL_UNLOCK_FUNCTION();

  // Both give the mutex back while they wait, and hold it whenever they call `condition` and when they
  // return. `condition()` is looked at anew whenever a thread has held the mutex; it changes nothing.

  // Until the condition holds.
  template <typename Condition>
  void Await(const Condition& condition)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) ABSL_NO_THREAD_SAFETY_ANALYSIS {  // of what the condition requires
    if (condition()) return;
    BeginWaiting();
    do {
      Wait();
    } while (!condition());
    EndWaiting();
  }
  // At most for `limit`; returns whether the condition holds.
  template <typename Condition>
  bool AwaitFor(const Condition& condition, absl::Duration limit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (condition()) return true;
    const timespec end = EndOf(limit);
    BeginWaiting();
    bool holds = false;
    for (bool in_time = true; in_time && !holds; holds = condition()) in_time = WaitUntil(end);
    EndWaiting();
    return holds;
  }

 private:
  static timespec EndOf(absl::Duration limit);  // by the monotonic clock
  void BeginWaiting();
  void EndWaiting() { --waiters_; }
  void Wait();
  bool WaitUntil(const timespec& end);  // false: it is past

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
  int waiters_ = 0;
};

// Holds a mutex as long as it lives.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

}  // namespace bellwether
