#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "cli/load/load_result.h"
#include "cli/load/load_target.h"

namespace bellwether {

// How requests are sent: one after another on each of `concurrency` connections, or, with a rate, at times
// that do not depend on the answers, on as many connections as they need, up to `concurrency`.
struct LoadLevel {
  int concurrency = 1;
  double rate = 0;  // requests a second, a Poisson process; 0: whenever an answer has ended
  int64_t requests = 1;
  absl::Duration duration = absl::InfiniteDuration();  // none begins later
  uint64_t seed = 0;                                   // of the arrivals
};

// Sends requests 0, 1, 2 ... of `next`, which several threads call, and waits for their answers. `progress`
// is called now and then with how many have ended. Ends early on ^C.
std::vector<LoadResult> RunLoadLevel(LoadTarget& target, const LoadLevel& level,
                                     absl::FunctionRef<LoadRequest(int64_t)> next,
                                     absl::FunctionRef<void(int64_t ended)> progress);

}  // namespace bellwether
