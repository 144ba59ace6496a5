#include "cli/load/load_run.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "cli/load/arrivals.h"
#include "cli/stop.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace bellwether {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(200);

LoadResult SendOne(LoadConnection& connection, const LoadRequest& request, absl::Duration due) {
  const Clock& clock = *Clock::Real();
  LoadResult result{.due = due, .sent = clock.Now()};
  absl::Duration last;
  const LoadAnswer answer = connection.Send(request, [&](int tokens) {
    const absl::Duration now = clock.Now();
    if (result.pieces == 0) {
      result.first = now;
      --tokens;  // the others came with it
      result.gaps.insert(result.gaps.end(), std::max(tokens, 0), 0.0f);
    } else {
      const auto gap = static_cast<float>(absl::ToDoubleSeconds(now - last) / std::max(tokens, 1));
      result.gaps.insert(result.gaps.end(), tokens, gap);
    }
    last = now;
    ++result.pieces;
  });
  result.end = clock.Now();
  if (result.pieces == 0) result.first = result.end;
  result.error = answer.error;
  result.why = answer.why;
  result.prompt_tokens = answer.prompt_tokens;
  result.generated_tokens = answer.generated_tokens;
  return result;
}

// The requests of one level, shared out to threads.
class Level {
 public:
  Level(LoadTarget& target, const LoadLevel& level, absl::FunctionRef<LoadRequest(int64_t)> next)
      : target_(target), level_(level), next_(next), begin_(Clock::Real()->Now()) {
    if (level.rate > 0) arrivals_ = PoissonArrivals(level.rate, level.requests, level.seed);
  }

  // On each connection, until there are no more requests.
  void Work() {
    const std::unique_ptr<LoadConnection> connection = target_.NewConnection();
    while (!StopRequested()) {
      const int64_t index = taken_++;
      if (index >= level_.requests) return;
      const absl::Duration at = arrivals_.empty() ? Clock::Real()->Now() - begin_ : arrivals_[index];
      if (at > level_.duration) return;
      const LoadRequest request = next_(index);
      const absl::Duration wait = begin_ + at - Clock::Real()->Now();
      if (wait > absl::ZeroDuration() && StopCancellation()->WaitFor(wait)) return;
      const absl::Duration due = arrivals_.empty() ? Clock::Real()->Now() : begin_ + at;
      LoadResult result = SendOne(*connection, request, due);
      if (StopRequested()) return;  // what ^C cut short says nothing
      MutexLock lock(&mutex_);
      results_.push_back(std::move(result));
    }
  }

  int64_t ended() {
    MutexLock lock(&mutex_);
    return static_cast<int64_t>(results_.size());
  }
  std::vector<LoadResult> Take() {
    MutexLock lock(&mutex_);
    return std::move(results_);
  }

 private:
  LoadTarget& target_;
  const LoadLevel& level_;
  const absl::FunctionRef<LoadRequest(int64_t)> next_;
  const absl::Duration begin_;
  std::vector<absl::Duration> arrivals_;
  std::atomic<int64_t> taken_ = 0;
  Mutex mutex_;
  std::vector<LoadResult> results_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::vector<LoadResult> RunLoadLevel(LoadTarget& target, const LoadLevel& level,
                                     absl::FunctionRef<LoadRequest(int64_t)> next,
                                     absl::FunctionRef<void(int64_t ended)> progress) {
  Level work(target, level, next);
  const auto count = static_cast<int>(std::min<int64_t>(level.concurrency, level.requests));
  std::atomic<int> running = count;
  Cancellation done;
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      work.Work();
      if (--running == 0) done.Cancel();
    });
  }
  while (!done.WaitFor(kLook)) progress(work.ended());
  for (std::thread& thread : threads) thread.join();
  return work.Take();
}

}  // namespace bellwether
