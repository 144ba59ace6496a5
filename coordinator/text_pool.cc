#include "coordinator/text_pool.h"

#include <algorithm>
#include <utility>

namespace bellwether {
namespace {

// A task that this thread runs.
struct Running {
  const TextPool* pool;
  size_t bytes;
  size_t bytes_ahead;  // that it still lets go ahead
  Running* host;       // that gave way to it, or null
};
thread_local Running* running = nullptr;  // the innermost

}  // namespace

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
  Run(task);
  task.run = nullptr;  // what it holds goes before the next one is taken
  if (task.is_long()) {
    MutexLock lock(&mutex_);
    --longs_running_;
  }
  return true;
}

void TextPool::Run(const Task& task) {
  Running self{this, task.bytes, task.bytes, running};
  running = &self;
  task.run();
  running = self.host;
}

void TextPool::GiveWay() {
  if (running == nullptr || running->pool != this || running->bytes <= kShortTextBytes) return;
  size_t most = running->bytes / 2;
  for (const Running* it = running; it != nullptr; it = it->host) most = std::min(most, it->bytes_ahead);
  Task task;
  if (!TakeOfAtMost(most, &task)) return;
  for (Running* it = running; it != nullptr; it = it->host) it->bytes_ahead -= task.bytes;
  Run(task);
}

bool TextPool::LongsTurn() const {
  return !long_.empty() && (short_.empty() || shorts_ahead_ >= kShortsAhead);
}

bool TextPool::LongMayRun() const {
  return LongsTurn() && longs_running_ < std::max(1, options_.threads - 1);
}

TextPool::Queue::iterator TextPool::ShortestLong() {
  return std::min_element(long_.begin(), long_.end(),
                          [](const Task& a, const Task& b) { return a.bytes < b.bytes; });
}

TextPool::Task TextPool::TakeShort() {
  shorts_ahead_ = long_.empty() ? 0 : shorts_ahead_ + 1;
  return TakeFrom(&short_, short_.begin());
}

TextPool::Task TextPool::TakeLong(const Queue::iterator& place) {
  shorts_ahead_ = 0;
  return TakeFrom(&long_, place);
}

TextPool::Task TextPool::TakeFrom(Queue* queue, const Queue::iterator& place) {
  Task task = std::move(*place);
  queue->erase(place);
  bytes_waiting_ -= task.bytes;
  return task;
}

bool TextPool::Take(Task* task) {
  MutexLock lock(&mutex_);
  mutex_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !short_.empty() || LongMayRun() || (ending_ && long_.empty());
  });
  if (LongMayRun()) {
    const Queue::iterator next = longs_ahead_ >= kShortsAhead ? long_.begin() : ShortestLong();
    longs_ahead_ = next == long_.begin() ? 0 : longs_ahead_ + 1;
    ++longs_running_;
    *task = TakeLong(next);
    return true;
  }
  if (short_.empty()) return false;
  *task = TakeShort();
  return true;
}

bool TextPool::TakeOfAtMost(size_t bytes, Task* task) {
  MutexLock lock(&mutex_);
  if (LongsTurn()) {
    const Queue::iterator next = ShortestLong();
    if (next->bytes > bytes) return false;
    *task = TakeLong(next);
    return true;
  }
  if (short_.empty() || short_.front().bytes > bytes) return false;
  *task = TakeShort();
  return true;
}

}  // namespace bellwether
