#pragma once

#include <cstdint>
#include <vector>

namespace bellwether {

// Layers whose weights do not stay in memory, but are read from a drive whenever a step comes to them.

// kAuto: those that do not fit.
enum class Offload : uint8_t { kAuto, kOff };

// Buffers of a worker that streams, each as large as its largest streamed layer: one is in use while the next
// layer is read into the other.
inline constexpr int kLayerBuffers = 2;

// Which of `layers` layers are streamed when `streamed` are: evenly spread, so that the drive reads while
// those between them are computed. 0 <= streamed <= layers.
inline std::vector<bool> StreamedLayers(int64_t layers, int64_t streamed) {
  std::vector<bool> result;
  for (int64_t layer = 0; layer < layers; ++layer)
    result.push_back((layer + 1) * streamed / layers > layer * streamed / layers);
  return result;
}

}  // namespace bellwether
