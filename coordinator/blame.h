#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/cluster_snapshot.h"
#include "coordinator/worker_progress.h"

namespace bellwether {

// What the one to blame is called where nobody can name it.
inline constexpr char kUnnamedWorker[] = "a worker that nobody can name";

struct WaitingWorker {
  std::string name;
  WorkerProgress progress;
};
// Who holds up a step that does not get on: follows who waits for whom to the one that waits for nobody. -1
// if it waits and cannot tell for whom.
int ToBlame(const std::vector<WaitingWorker>& workers);
// What befell a worker whose peer gives up a step because of it.
EpochEnd WhatAPeerNoticed(const absl::Status& reason);

}  // namespace bellwether
