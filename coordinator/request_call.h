#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/log.h"
#include "common/mutex.h"
#include "coordinator/request_observer.h"
#include "coordinator/request_service.h"

namespace bellwether {

// Who asks, as the door has it.
struct Caller {
  std::string request_id;     // the client's own name for the request, empty if it has none
  std::string authorization;  // what he says to show who he is
  std::string traceparent;    // of the trace that the request is part of (trace_context.h); empty: of none
  absl::Duration time_left = absl::InfiniteDuration();  // until its deadline
};

// One call between its client and the engine, through whichever door it came: it waits for the pool, is read
// there, and becomes one request of the engine or more. The client may go away at any time. Owned by shared
// pointers.
//
// What waits for the pool belongs to whoever is first: the task that reads it, or the client by going away,
// which ends the call and what it was given with it.
class RequestCall : public std::enable_shared_from_this<RequestCall> {
 public:
  RequestCall(RequestService* service, Caller caller);
  virtual ~RequestCall() = default;

  // The name in answers and log lines: the client's, or one of ours where it has none or it is not allowed.
  const std::string& request_id() const { return request_id_; }
  // As the client gave it, for answers; empty unless it is well-formed.
  const std::string& traceparent() const { return traceparent_; }

  // Has the call read on the pool. Once. `reading_bytes`: of the texts that will be read, which are what
  // takes time.
  void Start(size_t reading_bytes);
  // The client does not wait for the answer any more. Any thread, any number of times.
  void Cancel();

 protected:
  // On the pool, at most once: reads what is asked for, and ends with Submit or the call's end.
  virtual void Read() = 0;
  // At most once, instead of Read, or in it: what is asked for cannot be.
  virtual void End(const absl::Status& status) = 0;

  // Ends it before the engine has heard of it, which is counted.
  void Refuse(const absl::Status& status) {
    service_->CountRefused(status);
    End(status);
  }

  RequestService& service() const { return *service_; }
  // Of the first request that is submitted.
  RequestId first_id() const { return first_id_; }
  // Why reading is of no use any more.
  absl::Status GivenUp() const;
  // Hands a request to the engine, with the call's deadline. Errors are EngineLoop::Submit's; else the
  // observer hears of the end. `part`: which of several it is, for the log.
  absl::Status Submit(EngineRequest request, std::shared_ptr<RequestObserver> observer, LogFields part = {});
  // Has the engine end what was submitted, and what still will be.
  void CancelSubmitted();
  // With the request's name in front.
  absl::Status Named(const absl::Status& status) const;
  void LogEnd(const absl::Status& status) const;

 private:
  // What the call's lines in the log are about.
  LogFields Fields() const;
  bool Take() { return !taken_.exchange(true); }

  RequestService* const service_;
  const RequestId first_id_;       // of the first submitted request, which also gives the call its name
  const absl::Duration deadline_;  // of the service's clock
  std::string request_id_;
  absl::Status request_id_status_;  // of the client's own name
  std::string traceparent_;
  const absl::StatusOr<std::string> client_;  // whose API key it is, for the log; or why he may not ask
  std::atomic<bool> taken_{false};
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;
  std::vector<RequestId> submitted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
