#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "common/bounded_queue.h"

namespace bellwether {

// A few threads for work that takes too long for a gRPC callback, such as tokenising a prompt.
class TaskPool {
 public:
  TaskPool(int threads, size_t tasks_max) : tasks_(tasks_max) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        while (const std::optional<std::function<void()>> task = tasks_.Pop()) (*task)();
      });
    }
  }
  // Runs what was posted before, then ends.
  ~TaskPool() {
    tasks_.Close();
    for (std::thread& thread : threads_) thread.join();
  }

  // False if too many tasks are waiting: the caller says so to whoever asked.
  [[nodiscard]] bool TryPost(std::function<void()> task) { return tasks_.TryPush(std::move(task)); }

 private:
  BoundedQueue<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
};

}  // namespace bellwether
