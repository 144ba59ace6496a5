#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "common/service_watchdog.h"
#include "coordinator/engine.h"
#include "coordinator/request_observer.h"

namespace bellwether {

// The one thread that owns the engine. Everyone else puts events into its queue and never waits; actions go
// out to the observers of the requests and to the workers.
class EngineLoop {
 public:
  struct Options {
    const Clock* clock = Clock::Real();
    // Requests in the queue that the engine has not seen. What workers and cancels add is bounded by what is
    // running.
    size_t arrivals_max = 1024;
    // Called from the loop's thread; may not wait.
    std::function<void(const Step&)> send_step;
    std::function<void(Epoch, const absl::Status&)> fail_epoch;
    // Puts somebody between a request and its observer, who passes on all that he hears. From any thread; may
    // not wait.
    std::function<std::shared_ptr<RequestObserver>(const EngineRequest&, std::shared_ptr<RequestObserver>)>
        observe = [](const EngineRequest&, std::shared_ptr<RequestObserver> observer) { return observer; };
  };
  EngineLoop(EngineOptions engine, const Tokenizer* tokenizer, Options options);
  ~EngineLoop();  // stops

  // -- From any thread

  RequestId NewRequestId() { return {++last_request_}; }
  // `request.id` is a new one. Unless this fails (ResourceExhausted, Unavailable) the observer gets OnDone in
  // the end.
  absl::Status Submit(EngineRequest request, std::shared_ptr<RequestObserver> observer);
  // Ids that have ended, or never were, mean nothing.
  void Cancel(RequestId id) { Post(RequestCancelled{id}); }
  // Any event but RequestArrived.
  void Post(Event event);

  // After the last events that were handled.
  EngineSnapshot snapshot() const;
  // Waits until no request is left; false after `timeout`.
  bool WaitUntilIdle(absl::Duration timeout) const;
  // Ends what is still there with Unavailable and the thread with it.
  void Stop();

 private:
  struct Item {
    Event event;
    std::shared_ptr<RequestObserver> observer;  // of a RequestArrived
  };
  void Run();
  // Waits for items or until the engine wants a tick. Empty: stop.
  std::vector<Item> NextItems();
  void Handle(Event event);
  void Carry(Action action);

  const Options options_;
  std::atomic<uint64_t> last_request_{0};

  // The loop's own.
  Engine engine_;
  absl::flat_hash_map<RequestId, std::shared_ptr<RequestObserver>> observers_;

  mutable Mutex mutex_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mutex_);
  size_t arrivals_ ABSL_GUARDED_BY(mutex_) = 0;  // RequestArrived in queue_
  absl::Duration next_tick_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  ServiceWatchdog::Pulse pulse_;
  std::thread thread_;
};

}  // namespace bellwether
