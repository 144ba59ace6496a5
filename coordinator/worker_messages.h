#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "coordinator/cluster_view.h"
#include "proto/bellwether/v1/cluster.pb.h"

namespace bellwether {

// What workers say, as the coordinator's own types, with every bound checked: a worker may be anybody.

// InvalidArgument, for the worker to read.
absl::Status CheckJoin(const v1::JoinRequest& join);
// Of one that is in order; without `held`.
JoiningWorker FromProto(const v1::JoinRequest& join);
// InvalidArgument if they make no sense.
absl::StatusOr<WorkerProgress> FromProto(const v1::Heartbeat& beat);
absl::StatusOr<WorkerReady> FromProto(WorkerId id, const v1::Ready& ready);
WorkerFailed FromProto(WorkerId id, const v1::Failure& failure);
// Clients are told the text of a token, and index by it.
bool TokensInRange(const StepResult& result, int32_t vocab);

// Of a worker that listens on all of its addresses: the one that it called from, of `peer` as gRPC writes it
// ("ipv4:10.0.0.1:4711", "ipv6:%5B::1%5D:4711"). Empty if there is
// none, or if it listens on the loopback of another machine.
std::string ReachableAddress(const std::string& address, const std::string& peer);

}  // namespace bellwether
