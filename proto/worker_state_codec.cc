#include "proto/worker_state_codec.h"

#include "absl/strings/str_cat.h"

namespace bellwether {

v1::WorkerState Encode(WorkerState state) {
  switch (state) {
    case WorkerState::kJoined:
      return v1::WORKER_STATE_JOINED;
    case WorkerState::kLoading:
      return v1::WORKER_STATE_LOADING;
    case WorkerState::kLinking:
      return v1::WORKER_STATE_LINKING;
    case WorkerState::kReady:
      return v1::WORKER_STATE_READY;
    case WorkerState::kStep:
      return v1::WORKER_STATE_STEP;
  }
  return v1::WORKER_STATE_UNSPECIFIED;
}

absl::StatusOr<WorkerState> Decode(v1::WorkerState state) {
  for (const WorkerState ours : {WorkerState::kJoined, WorkerState::kLoading, WorkerState::kLinking,
                                 WorkerState::kReady, WorkerState::kStep}) {
    if (Encode(ours) == state) return ours;
  }
  return absl::InvalidArgumentError(absl::StrCat("heartbeat.state is ", static_cast<int>(state)));
}

}  // namespace bellwether
