#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace bellwether {

// What a step took, and what its plan said.
struct StepTime {
  absl::Duration took;     // from its sending to its result
  absl::Duration busy;     // of that, since the result before: sums to the time with steps under way
  absl::Duration planned;  // for `busy`, at least
};

// A line a minute about the steps of a layout that streams weights, for the log: predicted against actual.
class StepReport {
 public:
  static constexpr absl::Duration kInterval = absl::Minutes(1);

  void Add(const StepTime& time);
  // Of the steps since the last one, a minute at the earliest after the first of them; empty: not yet.
  std::string Due(absl::Duration now);

 private:
  absl::Duration begin_;
  int64_t steps_ = 0;
  StepTime sum_;
};

}  // namespace bellwether
