#pragma once

#include "absl/status/statusor.h"
#include "common/worker_state.h"
#include "proto/bellwether/v1/cluster.pb.h"

namespace bellwether {

v1::WorkerState Encode(WorkerState state);
absl::StatusOr<WorkerState> Decode(v1::WorkerState state);  // InvalidArgument if it is none of ours

}  // namespace bellwether
