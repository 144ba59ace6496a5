#pragma once

#include "absl/time/time.h"

namespace bellwether {

// The only place that reads the time; everything else is handed a Clock or a time.
class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; the zero has no meaning.
  virtual absl::Duration Now() const = 0;
  static const Clock* Real();
};

// A clock that tests move by hand.
class ManualClock : public Clock {
 public:
  absl::Duration Now() const override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Duration now_ = absl::Seconds(1);
};

}  // namespace bellwether
