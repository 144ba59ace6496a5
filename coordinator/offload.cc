#include "coordinator/offload.h"

#include <algorithm>

#include "common/check.h"
#include "model/streamed_layers.h"

namespace bellwether {
namespace {

int32_t Layers(const OffloadCandidate& candidate) {
  return static_cast<int32_t>(candidate.layer_bytes.size());
}

// So many of the worker's layers when `part` of `parts` are streamed.
int32_t ShareOf(const OffloadCandidate& candidate, int32_t part, int32_t parts) {
  return static_cast<int32_t>((int64_t{Layers(candidate)} * part + parts - 1) / parts);
}

int64_t StreamedBytes(const OffloadCandidate& candidate, int32_t streamed) {
  const std::vector<bool> chosen = StreamedLayers(Layers(candidate), streamed);
  int64_t bytes = 0;
  for (size_t layer = 0; layer < chosen.size(); ++layer)
    bytes += chosen[layer] ? candidate.layer_bytes[layer] : 0;
  return bytes;
}

}  // namespace

int64_t ResidentBytes(const OffloadCandidate& candidate, int32_t streamed) {
  BW_CHECK(0 <= streamed && streamed <= Layers(candidate));
  if (streamed == 0) return candidate.worker->weight_bytes;
  const int64_t largest = *std::max_element(candidate.layer_bytes.begin(), candidate.layer_bytes.end());
  return candidate.worker->weight_bytes - StreamedBytes(candidate, streamed) + kLayerBuffers * largest;
}

bool StreamToFit(absl::Span<const OffloadCandidate> candidates, int64_t usable_bytes, int64_t kv_blocks) {
  int32_t parts = 0;
  for (const OffloadCandidate& candidate : candidates) parts = std::max(parts, Layers(candidate));
  for (int32_t part = 0; part <= parts; ++part) {
    int64_t needed = 0;
    for (const OffloadCandidate& candidate : candidates) {
      const PlannedWorker& worker = *candidate.worker;
      needed += ResidentBytes(candidate, ShareOf(candidate, part, std::max(1, parts))) +
                worker.activation_bytes + kv_blocks * worker.kv_block_bytes;
    }
    if (needed > usable_bytes) continue;
    for (const OffloadCandidate& candidate : candidates) {
      PlannedWorker& worker = *candidate.worker;
      worker.streamed_layers = ShareOf(candidate, part, std::max(1, parts));
      worker.streamed_bytes = StreamedBytes(candidate, worker.streamed_layers);
      worker.resident_bytes = ResidentBytes(candidate, worker.streamed_layers);
    }
    return true;
  }
  return false;
}

}  // namespace bellwether
