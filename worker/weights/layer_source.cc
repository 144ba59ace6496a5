#include "worker/weights/layer_source.h"

#include <utility>

#include "common/log.h"
#include "common/status.h"
#include "model/streamed_layers.h"

namespace bellwether {

absl::StatusOr<std::unique_ptr<LayerSource>> LayerSource::Create(Options options) {
  ReadAhead::Options ahead{.buffers = kLayerBuffers,
                           .cpus = options.cpus,
                           .wait_limit = options.wait_limit,
                           .verify_always = options.verify_always};
  for (const auto& layer : options.shard->layer_weights) {
    if (layer->file != nullptr) ahead.files.push_back(layer->file);
  }
  if (!ahead.files.empty() && !ahead.files[0]->direct()) {
    LogWarning(ahead.files[0]->path(),
               " lies where reads go through the system's cache: layers are streamed more slowly");
  }
  auto source = std::unique_ptr<LayerSource>(new LayerSource(std::move(options)));
  if (!ahead.files.empty()) {
    BW_ASSIGN_OR_RETURN(source->ahead_, ReadAhead::Create(std::move(ahead)));
  }
  return source;
}

absl::StatusOr<const LayerWeights*> LayerSource::Acquire(int64_t layer) {
  const LayerWeights& weights = WeightsOf(layer);
  if (weights.file == nullptr) return &weights;
  StepMeter& meter = options_.progress->meter;
  const StepPart before = meter.Enter(StepPart::kWeightsWait).before;
  absl::StatusOr<std::byte*> image = ahead_->Take(*weights.file);
  meter.Enter(before);
  if (!image.ok()) return Annotate(image.status(), "weights of a layer");
  weights.store->MoveTo(*image);
  const int64_t read = ahead_->bytes_read();
  options_.progress->streamed_bytes.fetch_add(read - counted_, std::memory_order_relaxed);
  counted_ = read;
  return &weights;
}

absl::Status LayerSource::Release(int64_t layer) {
  const LayerWeights& weights = WeightsOf(layer);
  if (weights.file == nullptr) return absl::OkStatus();
  BW_RETURN_IF_ERROR(options_.ops->Finish());
  weights.store->MoveTo(nullptr);
  ahead_->Release();
  return absl::OkStatus();
}

void LayerSource::Abort(const absl::Status& reason) {
  if (ahead_ != nullptr) ahead_->Abort(reason);
}

}  // namespace bellwether
