#pragma once

#include <string>

#include "coordinator/cluster_view.h"

namespace bellwether {

// What a worker with another model is told: the option by which the two read differently, else the two ids.
std::string ModelMismatch(const JoiningWorker& worker, const ClusterViewOptions& ours);

}  // namespace bellwether
