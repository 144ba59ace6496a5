#pragma once

#include <cstdint>
#include <vector>

namespace bellwether {

// Layers whose weights do not stay where they are computed with, but come from elsewhere whenever a step gets
// to them.

// kAuto: those that do not fit, of GPUs from the host's memory where it has room, else from a drive.
enum class Offload : uint8_t { kAuto, kOff, kDrive, kHost };

// Where the weights of a layer lie: in the memory of who computes, or in that of the host of a GPU, or on a
// drive, from which they are streamed.
enum class WeightHome : uint8_t { kDevice, kHost, kDrive };

// Buffers of a worker that streams, each as large as its largest streamed layer: one is in use while the next
// layer comes into the other. A GPU has as many, and its host again where layers come from a drive.
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
