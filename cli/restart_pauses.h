#pragma once

#include "absl/time/time.h"

namespace bellwether {

// How long to wait before a process that has ended is started again: longer each time, from the beginning
// once one has run well for a while.
class RestartPauses {
 public:
  // `lived`: how long the process ran that has just ended.
  absl::Duration Next(absl::Duration lived);

 private:
  int restarts_ = 0;  // since one ran well
};

}  // namespace bellwether
