#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "model/assignment.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/device/device.h"
#include "worker/executor_progress.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

struct LoadOptions {
  int threads = 1;
  std::vector<int> cpus;  // of the threads; empty: wherever the system likes
  // From those threads, before each read: true ends the loading with Cancelled. Empty: never.
  std::function<bool()> cancelled;
};

// Reads and packs what `assignment` gives this worker, and takes it to `device`, which outlives the shard.
// Errors name file and tensor.
absl::StatusOr<std::shared_ptr<const LoadedShard>> LoadShard(const Checkpoint& checkpoint,
                                                             const Assignment& assignment, Device& device,
                                                             const LoadOptions& options,
                                                             ExecutorProgress* progress);

}  // namespace bellwether
