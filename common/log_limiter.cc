#include "common/log_limiter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bellwether {

LogLimiter::LogLimiter(int burst, absl::Duration interval, const Clock* clock)
    : interval_(interval), credit_max_(burst * interval), clock_(clock) {
  MutexLock lock(&mutex_);
  last_ = clock_->Now();
  credit_ = credit_max_;
}

std::optional<int64_t> LogLimiter::Admit() {
  MutexLock lock(&mutex_);
  const absl::Duration now = clock_->Now();
  credit_ = std::min(credit_max_, credit_ + (now - last_));
  last_ = now;
  if (credit_ < interval_) {
    ++left_out_;
    return std::nullopt;
  }
  credit_ -= interval_;
  return std::exchange(left_out_, 0);
}

std::string AndLikeIt(int64_t left_out) {
  return left_out == 0 ? "" : absl::StrCat(" (and ", left_out, " like it since the last line)");
}

}  // namespace bellwether
