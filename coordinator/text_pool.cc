#include "coordinator/text_pool.h"

#include <algorithm>
#include <utility>

namespace bellwether {

TextPool::TextPool(const Options& options) : options_(options) {
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] {
      while (RunOne()) {
      }
    });
  }
}

TextPool::~TextPool() {
  {
    MutexLock lock(&mutex_);
    ending_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::TryPost(size_t bytes, std::function<void()> task) {
  MutexLock lock(&mutex_);
  if (ending_ || short_.size() + long_.size() >= options_.tasks_max) return false;
  if (bytes > options_.bytes_max - bytes_waiting_) return false;
  bytes_waiting_ += bytes;
  Task added{bytes, std::move(task)};
  (added.is_long() ? long_ : short_).push_back(std::move(added));
  return true;
}

bool TextPool::RunOne() {
  Task task;
  if (!Take(&task)) return false;
  task.run();
  task.run = nullptr;  // what it holds goes before the next one is taken
  if (task.is_long()) {
    MutexLock lock(&mutex_);
    --longs_running_;
  }
  return true;
}

bool TextPool::LongMayRun() const {
  if (long_.empty() || longs_running_ >= std::max(1, options_.threads - 1)) return false;
  return short_.empty() || shorts_ahead_ >= kShortsAhead;
}

bool TextPool::Take(Task* task) {
  MutexLock lock(&mutex_);
  mutex_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !short_.empty() || LongMayRun() || (ending_ && long_.empty());
  });
  const bool take_long = LongMayRun();
  std::deque<Task>& from = take_long ? long_ : short_;
  if (from.empty()) return false;
  *task = std::move(from.front());
  from.pop_front();
  bytes_waiting_ -= task->bytes;
  if (take_long) ++longs_running_;
  shorts_ahead_ = take_long || long_.empty() ? 0 : shorts_ahead_ + 1;
  return true;
}

}  // namespace bellwether
