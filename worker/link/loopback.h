#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "worker/link/link.h"

namespace bellwether {

struct LoopbackOptions {
  std::string first_name = "first";               // what the second link calls its peer
  std::string second_name = "second";             // and the other way round
  absl::Duration wait_limit = absl::Seconds(30);  // for a wait in which nothing moves
};

// Two links within this process that are each other's peer: for tests, and for several ranks in one process.
// Each end may be used and destroyed by its own thread; destroying one closes it for the other.
std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> MakeLoopbackLinks(
    const LoopbackOptions& options = {});

}  // namespace bellwether
