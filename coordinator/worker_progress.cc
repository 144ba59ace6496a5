#include "coordinator/worker_progress.h"

#include <algorithm>
#include <utility>

namespace bellwether {
namespace {

constexpr int kLoadingSteps = 256;  // of the bytes; linking is one more

}  // namespace

bool Changed(const WorkerProgress& before, const WorkerProgress& after) {
  return before.counter != after.counter || before.state != after.state || before.step != after.step ||
         before.epoch != after.epoch;
}

bool LoadingMeter::GetsOn(const WorkerProgress& progress) {
  if (bytes_ == 0) bytes_ = progress.total_bytes;
  const int step = StepOf(progress);
  return step > std::exchange(step_, std::max(step, step_));
}

int LoadingMeter::StepOf(const WorkerProgress& progress) const {
  if (progress.state == WorkerState::kLinking) return kLoadingSteps + 2;
  if (progress.state != WorkerState::kLoading) return 0;
  if (bytes_ == 0) return 1;
  const double share = static_cast<double>(progress.loaded_bytes) / static_cast<double>(bytes_);
  return 1 + static_cast<int>(kLoadingSteps * std::min(1.0, share));
}

}  // namespace bellwether
