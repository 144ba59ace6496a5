#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace bellwether {

// Tells the service manager that this process lives (WatchdogSec= of systemd.service(5)): each time that
// every loop without which it is of no use has turned anew. A loop that hangs makes it silent, and a manager
// that has heard nothing for its time ends the process and starts it again. Others may ask (Alive). Any
// thread; nothing waits.
class ServiceWatchdog {
 public:
  // As the manager asks this process (WATCHDOG_USEC, WATCHDOG_PID); says nothing where none does.
  static ServiceWatchdog* OfProcess();

  // `say` is called at most once in `interval`, from a loop that turns. An infinite one: never.
  ServiceWatchdog(const Clock* clock, absl::Duration interval, std::function<void()> say);
  ServiceWatchdog(const ServiceWatchdog&) = delete;
  ServiceWatchdog& operator=(const ServiceWatchdog&) = delete;

  // A loop counts from here to the end of its pulse.
  class Pulse {
   public:
    explicit Pulse(ServiceWatchdog* watchdog = OfProcess());
    ~Pulse();
    Pulse(const Pulse&) = delete;
    Pulse& operator=(const Pulse&) = delete;

    // For each turn, and so at least once in a few seconds, also where there is nothing to do.
    void Turned();

   private:
    friend class ServiceWatchdog;
    ServiceWatchdog* const watchdog_;
    absl::Duration last_;  // turn, or the beginning; guarded by the watchdog's mutex, as is
    bool turned_ = false;  // since the manager was last told
  };

  // Unavailable: a loop has not turned for a minute, in which each does many times.
  absl::Status Alive();

 private:
  void Turned(Pulse* pulse);

  const Clock* const clock_;
  const absl::Duration interval_;
  const std::function<void()> say_;
  Mutex mutex_;
  std::vector<Pulse*> pulses_ ABSL_GUARDED_BY(mutex_);
  absl::Duration next_ ABSL_GUARDED_BY(mutex_);  // not before
};

// Half of the manager's time, so that two may be late by as much; infinite where it asks for nothing or asks
// another process. The arguments are WATCHDOG_USEC and WATCHDOG_PID, or null.
absl::Duration WatchdogInterval(const char* microseconds, const char* pid, int64_t own_pid);

}  // namespace bellwether
