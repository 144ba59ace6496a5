#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "common/mutex.h"

namespace bellwether {

// Texts of up to so many bytes are short: reading one takes a few milliseconds.
inline constexpr size_t kShortTextBytes = 16 << 10;
// So many shorter ones go ahead of a long one that waits.
inline constexpr int kShortsAhead = 32;

// A few threads for work on texts that takes too long for a gRPC callback, such as tokenising a prompt. Short
// texts go ahead of long ones, and where there are two threads or more one of them is for short ones alone.
// Of long ones the shortest goes first, and a long one that runs gives way to much shorter ones; but none is
// overtaken for ever.
class TextPool {
 public:
  struct Options {
    int threads = 2;
    size_t tasks_max = 1024;               // that wait
    size_t bytes_max = size_t{256} << 20;  // of the texts that wait
  };
  explicit TextPool(const Options& options);
  ~TextPool();  // runs what was posted before, then ends

  // `bytes`: of the text that `task` is about. False if too many are waiting: the caller says so to whoever
  // asked.
  [[nodiscard]] bool TryPost(size_t bytes, std::function<void()> task);

  // For a task that runs, now and then, with no lock held: if it is about a long text, one that waits and has
  // at most half its bytes runs meanwhile, on this very thread. So together the texts of one thread hold
  // twice the memory of its longest at most. Nothing happens once others had as many bytes as the text has
  // itself, so that it takes at most twice as long; nor on a thread that is not of this pool.
  void GiveWay();

 private:
  struct Task {
    size_t bytes = 0;
    std::function<void()> run;
    bool is_long() const { return bytes > kShortTextBytes; }
  };
  using Queue = std::deque<Task>;  // in the order of their coming
  // Waits for a task that may run now, and runs it; false once the pool ends.
  bool RunOne();
  void Run(const Task& task);
  bool Take(Task* task);
  bool TakeOfAtMost(size_t bytes, Task* task);
  Task TakeShort() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Task TakeLong(const Queue::iterator& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Task TakeFrom(Queue* queue, const Queue::iterator& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Queue::iterator ShortestLong() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LongsTurn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LongMayRun() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Mutex mutex_;
  Queue short_ ABSL_GUARDED_BY(mutex_), long_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int longs_running_ ABSL_GUARDED_BY(mutex_) = 0;
  int shorts_ahead_ ABSL_GUARDED_BY(mutex_) = 0;  // taken in a row while a long one waited
  int longs_ahead_ ABSL_GUARDED_BY(mutex_) = 0;   // taken in a row that were not the one that waited longest
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace bellwether
