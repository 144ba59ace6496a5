// What ClusterView looks at as time passes: whether its workers are well, and get on.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/blame.h"
#include "coordinator/cluster_view.h"

namespace bellwether {
namespace {

// A step that takes so many times its deadline is given up, whatever the workers say about their progress.
constexpr int kStepPatience = 10;
constexpr absl::Duration kTickGapMax = absl::Seconds(1);

}  // namespace

void ClusterView::On(const ClusterTick& event) {
  // This process was held up itself: what the workers said meanwhile is still to be read.
  if (const absl::Duration gap = now_ - std::exchange(last_tick_, now_).value_or(now_); gap > kTickGapMax) {
    for (auto& [id, worker] : workers_) {
      worker.last_beat = std::min(now_, worker.last_beat + gap);
      worker.last_change = std::min(now_, worker.last_change + gap);
    }
  }
  CheckHeartbeats();
  if (phase_ == Phase::kLoading) CheckLoading();
  if (phase_ == Phase::kServing && event.steps_outstanding > 0) CheckSteps(event);
  if (phase_ == Phase::kServing && closing_since_) CheckClosing(event);
  Grow();
}

void ClusterView::CheckHeartbeats() {
  std::vector<WorkerId> silent;
  for (const auto& [id, worker] : workers_) {
    if (now_ - worker.last_beat >= options_.heartbeat_timeout) silent.push_back(id);
  }
  for (const WorkerId id : silent) {
    const absl::Status reason =
        absl::UnavailableError(absl::StrCat("no heartbeat for ", InSeconds(now_ - workers_.at(id).last_beat),
                                            ", the limit is ", InSeconds(options_.heartbeat_timeout)));
    Remove(id, reason, EpochEnd::kWorkerLost);
    actions_.push_back(DropWorker{id, reason});
  }
}

void ClusterView::CheckLoading() {
  const ClusterLayout::Member* stuck = nullptr;
  for (const ClusterLayout::Member& member : layout_->members) {
    const Worker& worker = workers_.at(member.id);
    if (worker.ready) continue;
    if (now_ - worker.last_change < options_.load_timeout)
      return;  // somebody gets on: the others wait for it
    // Who links only waits for those that still load.
    if (stuck == nullptr || workers_.at(stuck->id).progress.state == WorkerState::kLinking) stuck = &member;
  }
  if (stuck == nullptr) return;
  const WorkerId id = stuck->id;
  const absl::Status reason =
      absl::UnavailableError(absl::StrCat("no progress for ", InSeconds(now_ - workers_.at(id).last_change),
                                          " while ", std::string(Name(workers_.at(id).progress.state))));
  Remove(id, reason, EpochEnd::kWorkerStuck);
  actions_.push_back(DropWorker{id, reason});
}

void ClusterView::CheckSteps(const ClusterTick& tick) {
  const absl::Duration limit = layout_->step_deadline;
  absl::Duration last_change = tick.last_step_change;
  const ClusterLayout::Member* hung = nullptr;
  for (const ClusterLayout::Member& member : layout_->members) {
    const Worker& worker = workers_.at(member.id);
    last_change = std::max(last_change, worker.last_change);
    // Busy in a step, waiting for nobody, and not getting on: this one is to blame whatever the others do.
    if (worker.progress.state == WorkerState::kStep && !worker.progress.is_waiting() &&
        now_ - std::max(worker.last_change, tick.last_step_change) >= limit) {
      hung = &member;
    }
  }
  // Beats may say for ever that a step gets on.
  const absl::Duration without_result = now_ - tick.last_step_change;
  const absl::Duration patience = kStepPatience * std::max(limit, kDefaultStepDeadline);
  const bool silent = now_ - last_change >= limit;
  if (hung == nullptr && !silent && without_result < patience) return;
  if (hung == nullptr) {
    std::vector<WaitingWorker> waiting;
    for (const ClusterLayout::Member& member : layout_->members)
      waiting.push_back({member.worker.inventory.name, workers_.at(member.id).progress});
    if (const int blamed = ToBlame(waiting); blamed >= 0) hung = &layout_->members[blamed];
  }
  if (hung == nullptr) {
    return EndEpoch(
        absl::UnavailableError(absl::StrCat(kUnnamedWorker, " does not answer its peers: no result of ",
                                            "a step for ", InSeconds(without_result))),
        EpochEnd::kWorkerStuck);
  }
  const WorkerId id = hung->id;
  const WorkerProgress& progress = workers_.at(id).progress;
  const absl::Duration idle = now_ - workers_.at(id).last_change;
  const absl::Status reason = absl::UnavailableError(
      idle < limit ? absl::StrCat("no result of a step for ", InSeconds(without_result), ", the limit is ",
                                  InSeconds(patience))
                   : absl::StrCat("no progress in step ", progress.step.value, ", layer ", progress.layer,
                                  " for ", InSeconds(idle), ", the limit is ", InSeconds(limit)));
  Remove(id, reason, EpochEnd::kWorkerStuck);
  actions_.push_back(DropWorker{id, reason});
}

void ClusterView::CheckClosing(const ClusterTick& tick) {
  if (!tick.idle && now_ - *closing_since_ < options_.drain) return;
  EndEpoch(absl::UnavailableError(absl::StrCat("a worker was told to stop",
                                               tick.idle ? "" : ", and requests ran on for ",
                                               tick.idle ? "" : InSeconds(options_.drain))),
           EpochEnd::kWorkerLeft);
}

}  // namespace bellwether
