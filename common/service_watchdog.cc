#include "common/service_watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/service_notify.h"

namespace bellwether {
namespace {

constexpr absl::Duration kStillMax = absl::Minutes(1);

}  // namespace

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
  MutexLock lock(&mutex_);
  const absl::Duration now = clock_->Now();
  pulse->turned_ = true;
  pulse->last_ = now;
  if (interval_ == absl::InfiniteDuration() || now < next_ ||
      !std::all_of(pulses_.begin(), pulses_.end(), [](const Pulse* it) { return it->turned_; }))
    return;
  next_ = now + interval_;
  for (Pulse* each : pulses_) each->turned_ = false;
  say_();
}

absl::Status ServiceWatchdog::Alive() {
  MutexLock lock(&mutex_);
  for (const Pulse* pulse : pulses_) {
    const absl::Duration still = clock_->Now() - pulse->last_;
    if (still <= kStillMax) continue;
    return absl::UnavailableError(absl::StrCat("a loop of this program has stood still for ",
                                               absl::FormatDuration(absl::Floor(still, absl::Seconds(1)))));
  }
  return absl::OkStatus();
}

ServiceWatchdog::Pulse::Pulse(ServiceWatchdog* watchdog)
    : watchdog_(watchdog), last_(watchdog->clock_->Now()) {
  MutexLock lock(&watchdog_->mutex_);
  watchdog_->pulses_.push_back(this);
}

ServiceWatchdog::Pulse::~Pulse() {
  MutexLock lock(&watchdog_->mutex_);
  std::erase(watchdog_->pulses_, this);
}

void ServiceWatchdog::Pulse::Turned() { watchdog_->Turned(this); }

}  // namespace bellwether
