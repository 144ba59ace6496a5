#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace bellwether {

// For a wait on something that tells what it is at: knows when it is worth telling on, and when to stop. What
// gets on may take as long as it likes; what stands still for `limit`, or goes round in circles, may not.
class Patience {
 public:
  explicit Patience(absl::Duration limit) : limit_(limit) {}

  // What is told at `now` (never goes back), in words and by a number that changes as it gets on.
  // DeadlineExceeded, in words for people, when it is time to stop.
  absl::Status Hear(absl::Duration now, const std::string& state, uint64_t progress = 0);

  // For how long it has not got on.
  absl::Duration standing(absl::Duration now) const { return now - last_progress_; }

  // Whether what was heard last has not been told on yet; true once for each state.
  bool IsNews();

 private:
  absl::Status CheckCircles(const std::string& state);

  const absl::Duration limit_;
  absl::Duration last_progress_;
  std::string state_, told_;
  uint64_t progress_ = 0;
  bool heard_ = false;
  std::map<std::string, int> times_;  // how often each state was entered, whatever its numbers
};

}  // namespace bellwether
