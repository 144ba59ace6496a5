#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "common/mutex.h"

namespace bellwether {

// A FIFO with a limit, for any number of pushing and popping threads.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t limit) : limit_(limit) {}

  // False if the queue is full or closed: the caller says so to whoever caused the push.
  [[nodiscard]] bool TryPush(T item) {
    MutexLock lock(&mutex_);
    if (closed_ || items_.size() >= limit_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  // Waits while the queue is full. False if it is closed.
  [[nodiscard]] bool Push(T item) {
    MutexLock lock(&mutex_);
    mutex_.Await([this]()
                     ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || items_.size() < limit_; });
    if (closed_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  // Waits for an item. Nothing once the queue is closed and empty, or after `timeout`.
  std::optional<T> Pop(absl::Duration timeout = absl::InfiniteDuration()) {
    MutexLock lock(&mutex_);
    mutex_.AwaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || !items_.empty(); },
                    timeout);
    if (items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // Pushing fails from now on; what is queued can still be popped.
  void Close() {
    MutexLock lock(&mutex_);
    closed_ = true;
  }

  bool closed() const {
    MutexLock lock(&mutex_);
    return closed_;
  }

 private:
  const size_t limit_;
  mutable Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bellwether
