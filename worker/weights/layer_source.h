#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "model/streamed_layers.h"
#include "worker/device/device.h"
#include "worker/executor_progress.h"
#include "worker/weights/loaded_shard.h"
#include "worker/weights/read_ahead.h"

namespace bellwether {

// The layers of a shard, and a head that is streamed, for one who asks for them in order, step after step:
// those in the device's memory, and those that are streamed, whose matrices come just in time, from their
// files or from the host's memory. Used by the executor's thread alone, but for Abort. Ends after the ops,
// which may be reading what it has.
//
// A device with memory of its own has a slot for each of kLayerBuffers images. They are numbered as they
// come, from 0 over all steps, and image i goes to slot i % kLayerBuffers as soon as the one before it there
// has been released and the host has it: beside the operations on the image in the other slot.
class LayerSource {
 public:
  struct Options {
    std::shared_ptr<const LoadedShard> shard;
    Device* device = nullptr;              // outlives this
    DeviceOps* ops = nullptr;              // outlives the use of this
    std::vector<int> cpus;                 // of threads that read; empty: wherever the system likes
    absl::Duration wait_limit;             // for the drive, and for copies to the device
    bool verify_always = false;            // as ReadAhead has it
    ExecutorProgress* progress = nullptr;  // likewise; told of waits and bytes
  };
  // ResourceExhausted if there is no memory for what is read ahead.
  static absl::StatusOr<std::unique_ptr<LayerSource>> Create(Options options);

  // The weights of `layer`, counted from the shard's first, for operations until Release. Errors:
  // ReadAhead::Take's; DeadlineExceeded if the device does not take copies.
  absl::StatusOr<const LayerWeights*> Acquire(int64_t layer);
  // The operations asked for so far are the last that use it: then another may take its place.
  absl::Status Release(int64_t layer);
  // The same of a streamed head's pieces, counted from the first, which come after the layers. A step may do
  // without them, or go through them again: what is read ahead for nothing is what fits into the buffers.
  absl::StatusOr<const VocabularyPiece*> AcquireHead(int64_t piece);
  absl::Status ReleaseHead();
  // From any thread: whoever waits for a layer gets `reason`.
  void Abort(const absl::Status& reason);

 private:
  explicit LayerSource(Options options) : options_(std::move(options)) {}
  absl::Status Reserve();
  // What is streamed of a layer or a head.
  struct Image {
    WeightStore* store = nullptr;
    const LayerFile* file = nullptr;  // null: in the host's memory
    int64_t bytes = 0;
  };
  const Image& ImageOf(int64_t image) const {
    return streamed_[image % static_cast<int64_t>(streamed_.size())];
  }
  absl::Status AcquireImage(const WeightStore& store);
  absl::Status ReleaseImage();
  // Until the image of `store` is the next one: a step takes all of a head's pieces, or none.
  absl::Status PassOver(const WeightStore& store);
  const LayerWeights& WeightsOf(int64_t layer) const { return *options_.shard->layer_weights[layer]; }
  static int SlotOf(int64_t image) { return static_cast<int>(image % kLayerBuffers); }

  // Brings the image that is acquired next, waiting for it.
  absl::Status BringNext();
  // Brings those that need no waiting.
  absl::Status BringMore();
  bool NeedsNoWaiting() const;  // the next one to be brought
  absl::Status BringOne();
  // Buffers of the host whose images are on the device may be read to anew.
  absl::Status FreeBuffers(bool wait);
  absl::Status WaitUntilFilled(int slot);
  void CountBytes(int64_t bytes);

  const Options options_;
  std::vector<Image> streamed_;       // of a step, in order
  bool slots_ = false;                // else operations read images where the host has them
  std::unique_ptr<ReadAhead> ahead_;  // null if no layer comes from a drive
  // Images that have been brought to their slots, acquired and released, and how many buffers of ahead_ that
  // they came from were given back.
  int64_t brought_ = 0, acquired_ = 0, released_ = 0, freed_ = 0;
  std::byte* where_[kLayerBuffers] = {};  // in each slot
  int64_t counted_ = 0;                   // of the bytes that ahead_ has read, those that progress knows of

  Mutex mutex_;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
