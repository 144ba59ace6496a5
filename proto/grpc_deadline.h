#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace bellwether {

// gRPC's deadlines are points of the wall clock; ours are spans of time.

// InfiniteDuration is no deadline.
inline auto GrpcDeadlineAfter(absl::Duration span) { return absl::ToChronoTime(absl::Now() + span); }

// What is left of a call's deadline; InfiniteDuration if it has none.
template <typename TimePoint>
absl::Duration GrpcTimeLeft(TimePoint deadline) {
  if (deadline == TimePoint::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline) - absl::Now();
}

}  // namespace bellwether
