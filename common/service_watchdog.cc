#include "common/service_watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/config.h"
#include "common/service_notify.h"

namespace bellwether {

absl::Duration WatchdogInterval(const char* microseconds, const char* pid, int64_t own_pid) {
  int64_t time = 0;
  if (microseconds == nullptr || !absl::SimpleAtoi(microseconds, &time) || time <= 0)
    return absl::InfiniteDuration();
  int64_t asked = 0;
  if (pid != nullptr && (!absl::SimpleAtoi(pid, &asked) || asked != own_pid)) return absl::InfiniteDuration();
  return absl::Microseconds(time) / 2;
}

ServiceWatchdog* ServiceWatchdog::OfProcess() {
  static auto* const watchdog = new ServiceWatchdog(
      Clock::Real(),
      ServiceSocket().empty() ? absl::InfiniteDuration()
                              : WatchdogInterval(EnvironmentVariable("WATCHDOG_USEC"),
                                                 EnvironmentVariable("WATCHDOG_PID"), getpid()),
      [] { NotifyService("WATCHDOG=1"); });
  return watchdog;
}

ServiceWatchdog::ServiceWatchdog(const Clock* clock, absl::Duration interval, std::function<void()> say)
    : clock_(clock), interval_(interval), say_(std::move(say)), next_(clock->Now()) {}

void ServiceWatchdog::Turned(Pulse* pulse) {
  if (interval_ == absl::InfiniteDuration()) return;
  MutexLock lock(&mutex_);
  pulse->turned_ = true;
  const absl::Duration now = clock_->Now();
  if (now < next_ ||
      !std::all_of(pulses_.begin(), pulses_.end(), [](const Pulse* it) { return it->turned_; }))
    return;
  next_ = now + interval_;
  for (Pulse* each : pulses_) each->turned_ = false;
  say_();
}

ServiceWatchdog::Pulse::Pulse(ServiceWatchdog* watchdog) : watchdog_(watchdog) {
  MutexLock lock(&watchdog_->mutex_);
  watchdog_->pulses_.push_back(this);
}

ServiceWatchdog::Pulse::~Pulse() {
  MutexLock lock(&watchdog_->mutex_);
  std::erase(watchdog_->pulses_, this);
}

void ServiceWatchdog::Pulse::Turned() { watchdog_->Turned(this); }

}  // namespace bellwether
