#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "common/worker_state.h"

namespace bellwether {

struct ClusterLayout;

// Why an epoch ended.
enum class EpochEnd : uint8_t {
  kWorkerLost,
  kWorkerStuck,
  kWorkerFailed,
  kWorkerLeft,
  kWorkerJoined,  // while fewer served than are wanted, or is tried again
  kBadResult
};
inline constexpr size_t kEpochEnds = 6;

// The cluster at one time, for metrics and for whoever looks for its workers.
struct ClusterSnapshot {
  bool serving = false;  // and requests are taken
  Epoch epoch;           // the last one
  int workers_wanted = 0;
  int workers_short = 0;       // of those wanted, in the layout that serves or served last
  absl::Duration not_serving;  // in all, since the view began
  std::array<uint64_t, kEpochEnds> epochs_ended{};  // by EpochEnd
  std::shared_ptr<const ClusterLayout> layout;      // that is up or loads; null if none
  std::vector<double> waited_for;  // seconds, by the layout's flat order, summed over the others

  struct Worker {
    std::string name;
    std::string host;
    std::string metrics_address;  // empty: it has none
    bool metrics_tls = false;     // which speaks TLS
    WorkerState state = WorkerState::kJoined;
    absl::Duration heartbeat_age;
  };
  std::vector<Worker> workers;  // that have joined, in that order
  std::vector<Worker> missing;  // of the last layout, while no other has taken its place; no state or age
};

}  // namespace bellwether
