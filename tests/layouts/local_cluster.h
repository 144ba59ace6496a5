#pragma once

#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bounded_queue.h"
#include "common/step.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/device/device.h"
#include "worker/stage_executor.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {

// All workers of a layout in one process, each its own threads, linked by loopback: the real executors
// without the processes around them.
class LocalCluster {
 public:
  struct Options {
    Layout layout;
    NumericOptions numeric;
    int32_t kv_blocks = 64;
    int32_t context_tokens = 1024;
    int32_t step_tokens = 512;
    int threads = 1;  // of each worker
    // The device of each worker, by flat index; if empty, CPUs of `threads` threads.
    std::function<std::shared_ptr<Device>(size_t)> device_of;
    NcclUse nccl;                 // between GPUs
    int32_t streamed_layers = 0;  // of each stage, or all of its layers if those are fewer
    WeightHome stream_home = WeightHome::kDrive;
    StreamedEnds streamed_ends;         // of the stages that have them
    const ShardCache* cache = nullptr;  // where they lie on a drive
  };
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const Checkpoint& checkpoint,
                                                             const Options& options);
  ~LocalCluster();

  // Steps run in the order sent; results come in the same order.
  void Send(const Step& step);
  absl::StatusOr<StepResult> Receive();
  absl::StatusOr<StepResult> Run(const Step& step);

  int64_t weight_bytes() const;
  int64_t streamed_bytes() const;  // so far, by all workers

 private:
  struct Worker {
    std::shared_ptr<Device> device;
    std::shared_ptr<const LoadedShard> shard;
    std::unique_ptr<StageExecutor> executor;
    ExecutorProgress progress;
    BoundedQueue<Step> steps{64};
    std::thread thread;
  };
  void RunWorker(Worker& worker, bool answers);

  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<std::latch> over_;  // for all threads, and for who ends this
  struct Outcome {
    absl::Status status;
    StepResult result;  // if status is OK
  };
  BoundedQueue<Outcome> results_{64};
};

// Reads tests/goldens/NAME; tests run in the project's root.
std::string GoldenPath(const std::string& name);
// The models of tests/goldens/models, and what to open of one.
std::vector<std::string> GoldenModels();
std::string GoldenCheckpoint(const std::string& model);

}  // namespace bellwether
