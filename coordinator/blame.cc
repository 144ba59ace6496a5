#include "coordinator/blame.h"

#include <algorithm>

namespace bellwether {

int ToBlame(const std::vector<WaitingWorker>& workers) {
  const int count = static_cast<int>(workers.size());
  int at = count - 1;
  for (int i = 0; i < count; ++i) {  // who names somebody tells most
    const WorkerProgress& progress = workers[i].progress;
    if (!progress.waiting_for.empty() || (progress.is_waiting() && !workers[at].progress.is_waiting()))
      at = i;
  }
  for (int hops = 0; hops < count && !workers[at].progress.waiting_for.empty(); ++hops) {
    const auto next = std::find_if(workers.begin(), workers.end(), [&](const WaitingWorker& worker) {
      return worker.name == workers[at].progress.waiting_for;
    });
    if (next == workers.end()) break;
    at = static_cast<int>(next - workers.begin());
  }
  return workers[at].progress.waiting_for_some_peer ? -1 : at;
}

EpochEnd WhatAPeerNoticed(const absl::Status& reason) {
  return absl::IsDeadlineExceeded(reason) ? EpochEnd::kWorkerStuck : EpochEnd::kWorkerLost;
}

}  // namespace bellwether
