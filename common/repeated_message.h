#pragma once

#include <string>

#include "absl/time/time.h"

namespace bellwether {

// Which of many equal messages deserve a line: the first one, and then one with pauses that grow from a
// second to a minute. For what is tried again and again, so that logs say whom, why and since when, and stay
// short.
class RepeatedMessage {
 public:
  // Whether `message` is to be told at `now` (never goes back).
  bool IsDue(absl::Duration now, const std::string& message);
  // For how long it has been the same.
  absl::Duration age(absl::Duration now) const { return now - since_; }
  void Reset() { *this = {}; }

 private:
  std::string message_;
  bool any_ = false;
  absl::Duration since_, next_, pause_;
};

}  // namespace bellwether
