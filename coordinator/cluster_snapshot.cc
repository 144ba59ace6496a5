#include "coordinator/cluster_snapshot.h"

#include <algorithm>

#include "coordinator/cluster_view.h"

namespace bellwether {

ClusterSnapshot ClusterView::snapshot() const {
  ClusterSnapshot snapshot{.serving = serving() && !closing_since_,
                           .epoch = {last_epoch_},
                           .workers_wanted = options_.workers_wanted,
                           .workers_short = served_short_of_,
                           .not_serving = now_ - begun_.value_or(now_) - served_,
                           .epochs_ended = epochs_ended_,
                           .layout = layout_};
  for (const auto& [id, worker] : workers_) {
    snapshot.workers.push_back({.name = worker.info.inventory.name,
                                .host = worker.info.inventory.host,
                                .metrics_address = worker.info.metrics_address,
                                .metrics_tls = worker.info.metrics_tls,
                                .state = worker.progress.state,
                                .heartbeat_age = now_ - worker.last_beat});
  }
  if (layout_ != nullptr) snapshot.waited_for = WaitedFor();
  if (layout_ == nullptr && last_layout_ != nullptr) {
    for (const ClusterLayout::Member& member : last_layout_->members) {
      const WorkerInventory& inventory = member.worker.inventory;
      const auto is_it = [&](const ClusterSnapshot::Worker& worker) { return worker.name == inventory.name; };
      if (std::any_of(snapshot.workers.begin(), snapshot.workers.end(), is_it)) continue;
      snapshot.missing.push_back({.name = inventory.name, .host = inventory.host});
    }
  }
  return snapshot;
}

std::vector<double> ClusterView::WaitedFor() const {
  std::vector<double> seconds(layout_->members.size());
  for (const ClusterLayout::Member& member : layout_->members) {
    const WorkerProgress& progress = workers_.at(member.id).progress;
    if (progress.epoch != layout_->epoch) continue;
    for (const WorkerProgress::Wait& wait : progress.waits) {
      if (static_cast<size_t>(wait.peer) < seconds.size()) seconds[wait.peer] += wait.seconds;
    }
  }
  return seconds;
}

}  // namespace bellwether
