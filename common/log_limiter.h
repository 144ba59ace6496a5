#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace bellwether {

// Keeps lines that strangers can bring about at will from filling the log: `burst` of them may follow each
// other, then one each `interval`. Any thread.
class LogLimiter {
 public:
  LogLimiter(int burst, absl::Duration interval, const Clock* clock = Clock::Real());

  // How many lines have been left out since the last one that was written; nullopt: leave this one out too.
  std::optional<int64_t> Admit();

 private:
  const absl::Duration interval_, credit_max_;
  const Clock* const clock_;
  Mutex mutex_;
  absl::Duration last_ ABSL_GUARDED_BY(mutex_);
  absl::Duration credit_ ABSL_GUARDED_BY(mutex_);  // a line costs an interval
  int64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

// " (and 12 like it)"; empty for none.
std::string AndLikeIt(int64_t left_out);

}  // namespace bellwether
