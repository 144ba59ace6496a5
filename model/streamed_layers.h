#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/layout.h"

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

// The same of what lies outside the layers. An embedding's rows are read as a step's tokens ask for them; a
// head is read by every step that asks for logits, piece by piece after the layers. Where one matrix is both,
// it is streamed as both.
struct StreamedEnds {
  bool embedding = false;
  bool head = false;
  bool any() const { return embedding || head; }
  friend bool operator==(const StreamedEnds&, const StreamedEnds&) = default;
};

// Rows of a vocabulary that are hashed and streamed together, at most.
inline constexpr int64_t kVocabularyPiece = 4096;

// `rows` in pieces, which begin at the same rows on every layout but for the first.
inline std::vector<Range> VocabularyPieces(Range rows) {
  std::vector<Range> pieces;
  for (int64_t begin = rows.begin; begin < rows.end; begin = pieces.back().end)
    pieces.push_back({begin, std::min((begin / kVocabularyPiece + 1) * kVocabularyPiece, rows.end)});
  return pieces;
}

}  // namespace bellwether
