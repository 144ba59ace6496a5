#pragma once

#include "absl/status/status.h"
#include "cli/managed_cluster.h"

namespace bellwether {

// Serves a model with a coordinator and workers on this machine until ^C or SIGTERM; workers that die are
// started again.
absl::Status RunUp(const ClusterOptions& options);

}  // namespace bellwether
