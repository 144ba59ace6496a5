#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "worker/step_meter.h"
#include "worker/weights/stream_meter.h"

namespace bellwether {

// A line a minute about a worker that streams layers, for its log: what its steps took from the drive, and
// who waited for whom.
class StreamReport {
 public:
  // Counts since the worker began, at one time.
  struct Counts {
    int64_t streamed_bytes = 0;
    StepMeter::Reading times;
    StreamMeter::Reading stream;
  };
  static constexpr absl::Duration kInterval = absl::Minutes(1);

  // What is told next begins now.
  void Begin(absl::Duration now, const Counts& counts);
  bool IsDue(absl::Duration now) const { return now - begin_ >= kInterval; }
  // Of the time since the last one, and begins the next.
  std::string Line(absl::Duration now, const Counts& counts);

 private:
  absl::Duration begin_ = absl::ZeroDuration();
  Counts last_;
};

}  // namespace bellwether
