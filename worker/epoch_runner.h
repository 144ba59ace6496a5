#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "common/step.h"
#include "common/worker_state.h"
#include "model/assignment.h"
#include "worker/link/connector.h"
#include "worker/model_source.h"
#include "worker/stage_executor.h"
#include "worker/stream_report.h"
#include "worker/weights/shard_cache.h"
#include "worker/weights/write_behind.h"

namespace bellwether {

// One epoch of a worker, as it is told.
struct EpochTask {
  Assignment assignment;
  std::vector<LinkPeer> peers;  // every worker of the layout in flat order, this one included
  std::string link_secret;
};

// The thread that does a worker's work: loads the shard, makes the links, and runs step after step in order.
// Weights stay loaded from one epoch to the next if the part is the same.
class EpochRunner {
 public:
  // Called from the runner's thread.
  struct Events {
    std::function<void(Epoch, const LoadedShard&, int64_t kv_bytes)> ready;
    std::function<void(const StepResult&)> result;  // of the worker whose results count
    // The epoch is over for this worker. `blamed`: flat index of a peer that did not answer, kSomePeer if it
    // cannot tell which did not, or -1.
    std::function<void(Epoch, const absl::Status&, int blamed)> failed;
  };
  struct Options {
    ModelSource* models = nullptr;  // outlive the runner
    LinkListener* links = nullptr;
    std::shared_ptr<Device> device;
    int threads = 1;        // that load
    std::vector<int> cpus;  // of those that load, and of the runner's thread: the first, unless it calls NCCL
    NcclUse nccl;           // between GPUs
    // Of packed layers; outlives the runner. Null: none, and then no layer can be streamed.
    const ShardCache* cache = nullptr;
    bool cache_all = false;      // also of shards that are in memory whole
    bool verify_always = false;  // layers that are streamed, each time they are read
    const Clock* clock = Clock::Real();
    Events events;
  };
  explicit EpochRunner(Options options);
  ~EpochRunner();  // ends what runs

  // -- From any thread; none of them waits

  // Ends the epoch before, if there is one.
  void Begin(EpochTask task);
  // Steps of other epochs are dropped. False if more are waiting than a coordinator sends.
  [[nodiscard]] bool Add(Step step);
  // Ends `epoch`, or whichever is under way if it is 0, its loading too: `failed` is not called for it any
  // more.
  void End(Epoch epoch, const std::string& reason);

  // How long a worker has waited for a peer since its layout came up.
  struct PeerWait {
    int index = 0;  // flat
    int stage = 0, rank = 0;
    absl::Duration waited;
  };
  struct Progress {
    Epoch epoch;
    WorkerState state = WorkerState::kJoined;
    int waiting_for = -1;  // flat index, or kSomePeer
    uint64_t counter = 0;  // grows whenever the executor gets on
    uint64_t step = 0;
    int32_t layer = 0;
    int64_t loaded_bytes = 0, total_bytes = 0;
    std::vector<PeerWait> waits;  // of peers that it talks to

    // Also between epochs.
    int last_stage = -1, last_rank = -1;     // of the layout that came up last, -1 before
    int64_t weight_bytes = 0, kv_bytes = 0;  // that it holds in memory
    int64_t streamed_bytes = 0;              // of weights, that steps have taken from its drive
    int64_t unwritten_images = 0;            // packed, and not yet in the shard cache
    StepMeter::Reading times;
    StreamMeter::Reading stream;  // of layers that are streamed
  };
  Progress progress() const;
  // The weights that are loaded; nothing while others take their place.
  std::optional<HeldPart> held() const;

 private:
  void Run();
  void Start(const EpochTask& task);
  absl::Status Prepare(const EpochTask& task);
  absl::StatusOr<std::vector<std::unique_ptr<Link>>> Connect(const EpochTask& task);
  void RunStep(const Step& step);
  // A line a minute, of a layout that streams.
  void ReportStreaming();
  StreamReport::Counts StreamCounts() const;
  // Reports an error of `epoch` unless it has been ended from outside.
  void Fail(Epoch epoch, const absl::Status& status);
  bool Wanted(Epoch epoch) const;
  void SetState(WorkerState state);
  void SetHeld(std::optional<HeldPart> held);
  // What is left of an epoch when its executor has ended.
  void Leave() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<PeerWait> Waits() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  ExecutorProgress progress_{options_.clock};
  const std::unique_ptr<WriteBehind> write_behind_;  // null without a cache

  // The thread's own.
  std::shared_ptr<const LoadedShard> shard_;
  bool reports_ = false;  // this worker's results count
  StreamReport stream_report_;

  mutable Mutex mutex_;                   // never held while links or the executor are called
  Epoch wanted_ ABSL_GUARDED_BY(mutex_);  // 0: none
  std::optional<EpochTask> next_ ABSL_GUARDED_BY(mutex_);
  std::deque<Step> steps_ ABSL_GUARDED_BY(mutex_);
  // Changed and ended by the thread alone, the latter while nobody aborts it: NCCL wants its one thread.
  std::unique_ptr<StageExecutor> executor_ ABSL_GUARDED_BY(mutex_);
  int aborting_ ABSL_GUARDED_BY(mutex_) = 0;
  Epoch executor_epoch_ ABSL_GUARDED_BY(mutex_);
  WorkerState state_ ABSL_GUARDED_BY(mutex_) = WorkerState::kJoined;
  std::optional<HeldPart> held_ ABSL_GUARDED_BY(mutex_);          // of shard_
  int64_t weight_bytes_ ABSL_GUARDED_BY(mutex_) = 0;              // likewise
  int64_t kv_bytes_ ABSL_GUARDED_BY(mutex_) = 0;                  // of executor_
  std::shared_ptr<const Assignment> up_ ABSL_GUARDED_BY(mutex_);  // of the layout that came up last
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace bellwether
