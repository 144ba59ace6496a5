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
#include "worker/weights/shard_cache.h"
#include "worker/weights/write_behind.h"

namespace bellwether {

struct LoadOptions {
  int threads = 1;
  std::vector<int> cpus;  // of the threads; empty: wherever the system likes
  // From any thread, before each read and while the cache is written: true ends the loading with Cancelled.
  // Empty: never.
  std::function<bool()> cancelled;
  // Where packed layers are kept, and streamed from; null: nowhere.
  const ShardCache* cache = nullptr;
  // Gets what is in the host's memory and not in the cache yet, for who writes it later. Null: it is written
  // at once, as is what goes to a GPU, whose memory nobody reads.
  std::vector<UnwrittenImage>* unwritten = nullptr;
  // What was loaded before: layers of it that are the same stay as they are. Null: nothing.
  std::shared_ptr<const LoadedShard> previous;
  // Where loading ends with an error: the layers that were complete by then, which the next one may take
  // over. It serves nothing. Null: they are dropped.
  std::shared_ptr<const LoadedShard>* unfinished = nullptr;
};

// Reads and packs what `assignment` gives this worker, and takes it to `device`, which outlives the shard;
// layers that the cache has are not packed again. Errors name file and tensor. FailedPrecondition: layers are
// to be streamed, and there is no cache, or the device's weights do not come and go.
absl::StatusOr<std::shared_ptr<const LoadedShard>> LoadShard(const Checkpoint& checkpoint,
                                                             const Assignment& assignment, Device& device,
                                                             LoadOptions options, ExecutorProgress* progress);

}  // namespace bellwether
