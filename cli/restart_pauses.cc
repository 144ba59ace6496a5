#include "cli/restart_pauses.h"

#include <algorithm>

namespace bellwether {
namespace {

constexpr absl::Duration kFirst = absl::Milliseconds(200);
constexpr absl::Duration kMax = absl::Seconds(30);
constexpr absl::Duration kRunsWell = absl::Minutes(1);  // more than a worker takes that always fails to load

}  // namespace

absl::Duration RestartPauses::Next(absl::Duration lived) {
  if (lived >= kRunsWell) restarts_ = 0;
  return std::min(kMax, kFirst * (1 << std::min(restarts_++, 10)));
}

}  // namespace bellwether
