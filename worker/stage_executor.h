#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "model/assignment.h"
#include "worker/executor_progress.h"
#include "worker/link/link.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// Where a worker computes (worker/device/device.h), and what it has loaded there (worker/weights).
class Device;
class LoadedShard;

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
    std::vector<int> cpus;       // of threads that read from a drive; empty: wherever the system likes
    bool verify_always = false;  // what they read, each time
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
