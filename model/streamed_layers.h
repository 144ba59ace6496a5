#pragma once

#include <cstdint>
#include <vector>

namespace bellwether {

// Layers whose weights do not stay in memory, but are read from a drive whenever a step comes to them.

// kAuto: those that do not fit.
enum class Offload : uint8_t { kAuto, kOff };

// Each worker that streams reads this many layers ahead of the step, the one in use included, into buffers as
// large as the largest of them.
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
