#pragma once

#include "proto/bellwether/v1/cluster.pb.h"
#include "worker/session.h"

namespace bellwether {

// What a joining worker tells of its machine and its device: names, memory, CPUs and rates, which are
// measured for some tenths of a second.
void DescribeMachine(const WorkerSession::Options& options, v1::JoinRequest* join);

}  // namespace bellwether
