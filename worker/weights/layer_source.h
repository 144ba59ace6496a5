#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/device.h"
#include "worker/executor_progress.h"
#include "worker/weights/loaded_shard.h"
#include "worker/weights/read_ahead.h"

namespace bellwether {

// The layers of a shard for one who asks for them in ascending order, step after step: those in memory, and
// those that are streamed, whose matrices come from their files just in time. Used by the executor's thread
// alone, but for Abort.
class LayerSource {
 public:
  struct Options {
    std::shared_ptr<const LoadedShard> shard;
    DeviceOps* ops = nullptr;              // outlives this
    std::vector<int> cpus;                 // of threads that read; empty: wherever the system likes
    absl::Duration wait_limit;             // for the drive
    bool verify_always = false;            // as ReadAhead has it
    ExecutorProgress* progress = nullptr;  // likewise; told of waits and bytes
  };
  // ResourceExhausted if there is no memory for what is read ahead.
  static absl::StatusOr<std::unique_ptr<LayerSource>> Create(Options options);

  // The weights of `layer`, counted from the shard's first, for operations until Release. Errors:
  // ReadAhead::Take's.
  absl::StatusOr<const LayerWeights*> Acquire(int64_t layer);
  // Waits until the operations that use a streamed layer are done: then the next one may take its place.
  absl::Status Release(int64_t layer);
  // From any thread: whoever waits for a layer gets `reason`.
  void Abort(const absl::Status& reason);

 private:
  explicit LayerSource(Options options) : options_(std::move(options)) {}
  const LayerWeights& WeightsOf(int64_t layer) const { return *options_.shard->layer_weights[layer]; }

  const Options options_;
  std::unique_ptr<ReadAhead> ahead_;  // null if no layer is streamed
  int64_t counted_ = 0;               // of the bytes it has read, those that progress knows of
};

}  // namespace bellwether
