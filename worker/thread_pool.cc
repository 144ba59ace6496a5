#include "worker/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace bellwether {
namespace {

constexpr int kYields = 400;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

void PinCurrentThread(int cpu) { LetCurrentThreadRunOn({cpu}); }

void LetCurrentThreadRunOn(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    if (0 <= cpu && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  }
  if (CPU_COUNT(&set) == 0) return;
  (void)sched_setaffinity(0, sizeof(set), &set);  // a CPU outside our mask leaves the mask as it was
}

ThreadPool::ThreadPool(Options options) : options_(std::move(options)) {
  BW_CHECK_GE(options_.threads, 1);
  workers_.reserve(options_.threads - 1);
  for (int thread = 1; thread < options_.threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Returns once `word` no longer holds `old`; spins or yields first, then sleeps on the word.
template <typename T>
void ThreadPool::WaitWhileEqual(const std::atomic<T>& word, T old) const {
  const int looks = options_.cores_are_short ? kYields : options_.spin_pauses;
  for (int i = 0; i < looks; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    if (options_.cores_are_short) {
      (void)sched_yield();
    } else {
      Pause();
    }
  }
  word.wait(old, std::memory_order_acquire);
}

void ThreadPool::ParallelFor(int64_t count, Body body) {
  if (count <= 0) return;
  if (count == 1 || options_.threads == 1) return body(0, count);
  Run({.body = &body, .count = count, .grain = 0});
}

void ThreadPool::ParallelForDynamic(int64_t count, int64_t grain, Body body) {
  BW_CHECK_GE(grain, 1);
  if (count <= 0) return;
  if (options_.threads == 1) {
    for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count));
    return;
  }
  if (count <= grain) return body(0, count);
  next_.store(0, std::memory_order_relaxed);
  Run({.body = &body, .count = count, .grain = grain});
}

void ThreadPool::Run(const Job& job) {
  BW_CHECK_EQ(unfinished_.load(std::memory_order_relaxed), 0);  // neither nested nor from two threads
  job_ = job;
  unfinished_.store(options_.threads - 1, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  RunPart(job, 0);
  for (;;) {
    const int32_t left = unfinished_.load(std::memory_order_acquire);
    if (left == 0) return;
    WaitWhileEqual(unfinished_, left);
  }
}

void ThreadPool::RunPart(const Job& job, int thread) {
  if (job.grain == 0) {
    // count / threads each, the first count % threads one more.
    const int64_t each = job.count / options_.threads, more = job.count % options_.threads;
    const int64_t begin = thread * each + std::min<int64_t>(thread, more);
    const int64_t end = begin + each + (thread < more ? 1 : 0);
    if (begin < end) (*job.body)(begin, end);
    return;
  }
  for (;;) {
    const int64_t begin = next_.fetch_add(job.grain, std::memory_order_relaxed);
    if (begin >= job.count) return;
    (*job.body)(begin, std::min(begin + job.grain, job.count));
  }
}

void ThreadPool::WorkerLoop(int thread) {
  if (!options_.cpus.empty()) PinCurrentThread(options_.cpus[thread % options_.cpus.size()]);
  uint32_t seen = 0;
  for (;;) {
    WaitWhileEqual(round_, seen);
    ++seen;  // the next job comes only after this one: rounds cannot be missed
    if (stop_.load(std::memory_order_relaxed)) return;
    RunPart(job_, thread);
    // The caller sleeps only for the last one.
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
  }
}

}  // namespace bellwether
