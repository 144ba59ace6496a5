#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace bellwether {

// What a user has seen of one request. Times are those of common/clock.h.
struct LoadResult {
  absl::Duration due;  // when it was to be sent: at an arrival rate the schedule's time, else `sent`
  absl::Duration sent;
  absl::Duration first;  // the first piece of the answer; meaningless if there was none
  absl::Duration end;
  std::vector<float> gaps;  // seconds from each token after the first to the one before
  int64_t pieces = 0;
  int64_t prompt_tokens = 0, generated_tokens = 0;  // as the server counts
  std::string error;                                // its kind; empty: none
  std::string why;                                  // what the server says of it, if it does

  // A wait that the load's own lateness caused is the server's: a user would have waited as well.
  absl::Duration TimeToFirstToken() const { return first - due; }
  absl::Duration EndToEnd() const { return end - due; }
  // Of the tokens after the first; 0 if there are none.
  double TimePerOutputToken() const {
    return generated_tokens > 1
               ? absl::ToDoubleSeconds(end - first) / static_cast<double>(generated_tokens - 1)
               : 0;
  }
};

// What answers are to keep to, in seconds; 0: no matter.
struct LoadObjectives {
  double time_to_first_token = 0, time_per_output_token = 0, end_to_end = 0;
  bool any() const { return time_to_first_token > 0 || time_per_output_token > 0 || end_to_end > 0; }
};

}  // namespace bellwether
