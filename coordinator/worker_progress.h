#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/worker_state.h"

namespace bellwether {

// What a worker says about itself in a heartbeat.
struct WorkerProgress {
  Epoch epoch;
  WorkerState state = WorkerState::kJoined;
  int64_t loaded_bytes = 0;
  int64_t total_bytes = 0;
  StepId step;
  int32_t layer = 0;
  std::string waiting_for;             // name of the peer, empty if none
  bool waiting_for_some_peer = false;  // and it cannot tell which
  bool is_waiting() const { return waiting_for_some_peer || !waiting_for.empty(); }
  uint64_t counter = 0;  // grows whenever the executor gets on
  struct Wait {
    int peer = 0;  // index in the layout's flat order
    double seconds = 0;
  };
  std::vector<Wait> waits;  // for each peer that it talks to, since the layout came up
};

// Whether the worker has done anything in between.
bool Changed(const WorkerProgress& before, const WorkerProgress& after);

// How far a worker is with the part that it loads, in steps that end: one that only counts up, for whatever
// reason, would keep all others waiting for ever.
class LoadingMeter {
 public:
  // Whether it has got on. `progress` is of the epoch for which it loads.
  bool GetsOn(const WorkerProgress& progress);

 private:
  int StepOf(const WorkerProgress& progress) const;

  int64_t bytes_ = 0;  // of its part, as the worker said first
  int step_ = 0;       // the highest so far
};

}  // namespace bellwether
