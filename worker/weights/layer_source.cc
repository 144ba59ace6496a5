#include "worker/weights/layer_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/status.h"

namespace bellwether {
namespace {

// Between two looks at a copy that is under way: short beside the milliseconds that a layer takes.
constexpr absl::Duration kNap = absl::Microseconds(50);

}  // namespace

absl::StatusOr<std::unique_ptr<LayerSource>> LayerSource::Create(Options options) {
  auto source = std::unique_ptr<LayerSource>(new LayerSource(std::move(options)));
  BW_RETURN_IF_ERROR(source->Reserve());
  return source;
}

absl::Status LayerSource::Reserve() {
  const LoadedShard& shard = *options_.shard;
  Device* const device = options_.device;
  ReadAhead::Options ahead{.buffers = kLayerBuffers,
                           .cpus = options_.cpus,
                           .new_buffer = [device](int64_t bytes) { return device->NewImage(bytes); },
                           .wait_limit = options_.wait_limit,
                           .verify_always = options_.verify_always,
                           .meter = options_.progress->stream};
  int64_t largest = 0;
  const auto add = [&](WeightStore* store, const std::shared_ptr<const LayerFile>& file, int64_t bytes) {
    streamed_.push_back({store, file.get(), bytes});
    largest = std::max(largest, bytes);
    if (file != nullptr) ahead.files.push_back(file);
  };
  for (const auto& layer : shard.layer_weights) {
    if (layer->streamed()) add(layer->store.get(), layer->file, layer->image_bytes);
  }
  for (const auto& piece : shard.head_pieces) add(piece->store.get(), piece->file, piece->image_bytes);
  if (streamed_.empty()) return absl::OkStatus();
  absl::StatusOr<bool> slots = options_.ops->ReserveSlots(kLayerBuffers, largest);
  if (!slots.ok()) return Annotate(slots.status(), "slots for layers that are streamed");
  slots_ = *slots;
  if (ahead.files.empty()) return absl::OkStatus();
  if (!ahead.files[0]->direct()) {
    LogWarning(ahead.files[0]->path(),
               " lies where reads go through the system's cache: layers are streamed more slowly");
  }
  BW_ASSIGN_OR_RETURN(ahead_, ReadAhead::Create(std::move(ahead)));
  return absl::OkStatus();
}

absl::StatusOr<const LayerWeights*> LayerSource::Acquire(int64_t layer) {
  const LayerWeights& weights = WeightsOf(layer);
  if (!weights.streamed()) return &weights;
  if (const absl::Status there = AcquireImage(*weights.store); !there.ok())
    return Annotate(there, "weights of a layer");
  return &weights;
}

absl::StatusOr<const VocabularyPiece*> LayerSource::AcquireHead(int64_t piece) {
  options_.progress->counter.fetch_add(1, std::memory_order_relaxed);
  const VocabularyPiece& weights = *options_.shard->head_pieces[piece];
  if (const absl::Status there = AcquireImage(*weights.store); !there.ok())
    return Annotate(there, "weights of the head");
  return &weights;
}

absl::Status LayerSource::AcquireImage(const WeightStore& store) {
  BW_RETURN_IF_ERROR(PassOver(store));
  StepMeter& meter = options_.progress->meter;
  const StepPart before = meter.Enter(StepPart::kWeightsWait).before;
  const absl::Status brought = BringNext();
  meter.Enter(before);
  BW_RETURN_IF_ERROR(brought);
  const int64_t image = acquired_++;
  options_.ops->UseSlot(SlotOf(image));
  ImageOf(image).store->MoveTo(where_[SlotOf(image)]);
  return absl::OkStatus();
}

absl::Status LayerSource::PassOver(const WeightStore& store) {
  BW_CHECK_EQ(acquired_, released_);
  int64_t image = acquired_;
  const int64_t round_end = acquired_ + static_cast<int64_t>(streamed_.size());
  while (image < round_end && ImageOf(image).store != &store) ++image;
  BW_CHECK_LT(image, round_end);
  // Those that are in their slots already, or on the way, are used for nothing.
  for (const int64_t end = std::min(brought_, image); acquired_ < end; ++acquired_, ++released_) {
    options_.ops->UseSlot(SlotOf(acquired_));
    BW_RETURN_IF_ERROR(options_.ops->ReleaseSlot(SlotOf(acquired_)));
  }
  if (acquired_ == image) return absl::OkStatus();
  // The reader passes over files when nothing that it has read is in use.
  BW_RETURN_IF_ERROR(FreeBuffers(/*wait=*/true));
  brought_ = acquired_ = released_ = freed_ = image;
  return absl::OkStatus();
}

absl::Status LayerSource::Release(int64_t layer) {
  const LayerWeights& weights = WeightsOf(layer);
  return weights.streamed() ? ReleaseImage() : absl::OkStatus();
}

absl::Status LayerSource::ReleaseHead() { return ReleaseImage(); }

absl::Status LayerSource::ReleaseImage() {
  BW_RETURN_IF_ERROR(options_.ops->ReleaseSlot(SlotOf(released_)));
  ImageOf(released_).store->MoveTo(nullptr);
  ++released_;
  return BringMore();
}

void LayerSource::Abort(const absl::Status& reason) {
  if (ahead_ != nullptr) ahead_->Abort(reason);
  MutexLock lock(&mutex_);
  aborted_.Update(reason);
}

absl::Status LayerSource::BringNext() {
  if (brought_ == acquired_) {
    // Who waits for the drive waits for the copies before it too, so that it has buffers to read to.
    BW_RETURN_IF_ERROR(FreeBuffers(/*wait=*/!NeedsNoWaiting()));
    BW_RETURN_IF_ERROR(BringOne());
  }
  return BringMore();
}

absl::Status LayerSource::BringMore() {
  BW_RETURN_IF_ERROR(FreeBuffers(/*wait=*/false));
  while (slots_ && NeedsNoWaiting()) BW_RETURN_IF_ERROR(BringOne());
  return absl::OkStatus();
}

bool LayerSource::NeedsNoWaiting() const {
  return brought_ < released_ + kLayerBuffers && (ahead_ == nullptr || ahead_->Ready());
}

absl::Status LayerSource::BringOne() {
  const Image& next = ImageOf(brought_);
  absl::Span<std::byte> image = next.store->image();
  if (next.file != nullptr) {
    BW_ASSIGN_OR_RETURN(std::byte* const read, ahead_->Take(*next.file));
    image = {read, static_cast<size_t>(next.bytes)};
    const int64_t bytes = ahead_->bytes_read();
    CountBytes(bytes - std::exchange(counted_, bytes));
  } else {
    CountBytes(next.bytes);
  }
  const int slot = SlotOf(brought_++);
  where_[slot] = options_.ops->FillSlot(slot, image);
  return absl::OkStatus();
}

absl::Status LayerSource::FreeBuffers(bool wait) {
  if (ahead_ == nullptr) return absl::OkStatus();
  for (const int64_t end = slots_ ? brought_ : released_; freed_ < end; ++freed_) {
    if (slots_ && wait) BW_RETURN_IF_ERROR(WaitUntilFilled(SlotOf(freed_)));
    BW_ASSIGN_OR_RETURN(const bool filled, options_.ops->SlotFilled(SlotOf(freed_)));
    if (!filled) break;
    ahead_->Release();
  }
  return absl::OkStatus();
}

absl::Status LayerSource::WaitUntilFilled(int slot) {
  const absl::Duration end = Clock::Real()->Now() + options_.wait_limit;
  while (true) {
    BW_ASSIGN_OR_RETURN(const bool filled, options_.ops->SlotFilled(slot));
    if (filled) return absl::OkStatus();
    if (Clock::Real()->Now() > end) {
      return absl::DeadlineExceededError(
          absl::StrCat("the device has not taken a copy within ", absl::FormatDuration(options_.wait_limit)));
    }
    MutexLock lock(&mutex_);
    const auto aborted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok(); };
    if (mutex_.AwaitFor(aborted, kNap)) return aborted_;
  }
}

void LayerSource::CountBytes(int64_t bytes) {
  options_.progress->streamed_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

}  // namespace bellwether
