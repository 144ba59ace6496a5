#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "model/checkpoint/checkpoint.h"
#include "model/weight_hash.h"
#include "worker/assignment.h"
#include "worker/link/link.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// How far the executor has come; read by the heartbeat thread at any time.
struct ExecutorProgress {
  std::atomic<uint64_t> counter{0};  // grows whenever it gets on
  std::atomic<uint64_t> step{0};
  std::atomic<int32_t> layer{-1};
  std::atomic<int32_t> waiting_for{-1};  // flat index of the worker it waits for, -1 if none
  std::atomic<int32_t> failed_peer{-1};  // flat index of the first worker whose link failed, -1 if none has
  // What is told below is of this epoch: whoever begins one sets it once the rest is reset.
  std::atomic<uint64_t> epoch{0};
  std::atomic<int64_t> loaded_bytes{0};
  std::atomic<int64_t> total_bytes{0};
};

// Where a worker computes (worker/device/device.h).
class Device;

// Weights of one rank, packed, on its device. Survives epochs: a worker that gets the same part again need
// not read it again.
class LoadedShard;

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
int64_t WeightBytes(const LoadedShard& shard);
const std::vector<WeightHash>& WeightHashes(const LoadedShard& shard);

// Runs steps on one worker: receive -> [embed] -> layers -> send, or [norm, logits, sample]. One thread calls
// Run, in step order; an error ends the epoch.
class StageExecutor {
 public:
  struct Options {
    Assignment assignment;
    std::shared_ptr<Device> device;
    std::shared_ptr<const LoadedShard> shard;  // on the device
    // To every worker in flat order (stage by stage, rank by rank); null where there is none to talk to (this
    // worker itself, and workers that are neither ranks of the same stage nor in a neighbouring one).
    std::vector<std::unique_ptr<Link>> links;
    ExecutorProgress* progress = nullptr;  // outlives the executor
    NcclUse nccl;                          // between GPUs
  };
  // ResourceExhausted if the KV cache or the scratch does not fit in the device's memory: a step allocates
  // none.
  static absl::StatusOr<std::unique_ptr<StageExecutor>> Create(Options options);
  virtual ~StageExecutor() = default;  // by the thread that calls Run

  // Once, before the first step: agrees with the peers on how to talk. Waits for them; all workers of a
  // layout call it, each on its own thread.
  virtual absl::Status Start() = 0;

  // A result with outputs on rank 0 of the last stage; an empty one elsewhere. InvalidArgument for a step
  // that contradicts what came before, else the error of the link that failed.
  virtual absl::StatusOr<StepResult> Run(const Step& step) = 0;

  // From any thread: Start and Run return `reason` soon.
  virtual void Abort(const absl::Status& reason) = 0;

  virtual int64_t kv_bytes() const = 0;
};

// Which workers `assignment`'s worker needs links to: flat indices, ascending.
std::vector<int> LinkedWorkers(const Assignment& assignment);

}  // namespace bellwether
