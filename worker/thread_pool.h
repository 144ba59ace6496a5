#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"

namespace bellwether {

// A fixed team of threads that share loops, thousands of times a second. The caller is a member of the team:
// it takes the first part and returns when all parts are done, so everything the body wrote is visible to it.
//
// One thread at a time calls ParallelFor (the executor thread), and bodies do not call it again. Between
// loops the others spin for a moment, then sleep.
class ThreadPool {
 public:
  struct Options {
    int threads = 1;  // the caller included; at least 1
    // Thread i runs on cpus[i % size]; empty: anywhere. The caller, thread 0, has been there before the pool
    // and sees to itself (PinCurrentThread).
    std::vector<int> cpus;
    // How long a thread without work spins before it sleeps. A pause is 10 to 50 ns: the default outlasts the
    // time between the loops of one layer.
    int spin_pauses = 4000;
    // A thread that waits never keeps its core: it yields to whoever wants it, some hundred times, before it
    // sleeps. With 8 threads on 2 cores this took a quarter of the processor time that spinning takes, and
    // was faster than sleeping at once, as it saves most of the waking.
    bool cores_are_short = false;
  };
  explicit ThreadPool(Options options);
  explicit ThreadPool(int threads, std::vector<int> cpus = {})
      : ThreadPool(Options{.threads = threads, .cpus = std::move(cpus)}) {}
  ~ThreadPool();  // joins
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return options_.threads; }

  using Body = absl::FunctionRef<void(int64_t begin, int64_t end)>;

  // Cuts [0, count) into threads() contiguous parts whose sizes differ by at most one and calls body once for
  // each part that is not empty: the same part on the same thread every time.
  void ParallelFor(int64_t count, Body body);

  // For work of uneven cost: threads take the next `grain` indices (the last take may be shorter) until none
  // are left.
  void ParallelForDynamic(int64_t count, int64_t grain, Body body);

 private:
  struct Job {
    const Body* body = nullptr;
    int64_t count = 0;
    int64_t grain = 0;  // 0: static parts
  };
  void Run(const Job& job);
  template <typename T>
  void WaitWhileEqual(const std::atomic<T>& word, T old) const;
  void RunPart(const Job& job, int thread);
  void WorkerLoop(int thread);

  const Options options_;
  Job job_;                                     // written before round_ is raised, read after
  alignas(64) std::atomic<uint32_t> round_{0};  // raised once for every job, and to stop
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<int32_t> unfinished_{0};  // workers still busy with this round
  alignas(64) std::atomic<int64_t> next_{0};        // dynamic jobs: first index nobody has taken
  std::vector<std::thread> workers_;
};

// Ties the calling thread, and those that it starts from now on, to one CPU. Does nothing where the CPU is
// not ours to use.
void PinCurrentThread(int cpu);
// Lets it run on any of `cpus`, where it was tied to one of them; empty: as it is.
void LetCurrentThreadRunOn(const std::vector<int>& cpus);

}  // namespace bellwether
