#pragma once

#include <functional>
#include <latch>
#include <thread>
#include <utility>

#include "common/bounded_queue.h"
#include "common/check.h"

namespace bellwether {

// The thread of one worker's executor, in a test of several workers: what an executor does is done on it, as
// NCCL demands.
class ExecutorThread {
 public:
  ExecutorThread()
      : thread_([this] {
          while (auto task = tasks_.Pop()) (*task)();
        }) {}
  ~ExecutorThread() {
    tasks_.Close();
    thread_.join();
  }
  // Tasks run one after the other.
  void Begin(std::function<void()> task) { BW_CHECK(tasks_.Push(std::move(task))); }
  // Returns when it is done, and so are those before it.
  void Run(const std::function<void()>& task) {
    std::latch done(1);
    Begin([&] {
      task();
      done.count_down();
    });
    done.wait();
  }

 private:
  BoundedQueue<std::function<void()>> tasks_{16};
  std::thread thread_;
};

}  // namespace bellwether
