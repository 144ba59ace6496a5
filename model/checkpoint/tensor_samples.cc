#include "model/checkpoint/tensor_samples.h"

#include "model/checkpoint/adjustment.h"

namespace bellwether {
namespace {

// A tensor is sampled in this many pieces, spread evenly from its first byte to its last.
constexpr uint64_t kSamplePieces = 4;
constexpr uint64_t kPieceBytes = 1024;

void AddSample(absl::Span<const std::byte> data, Sha256& hash) {
  if (data.size() <= kSamplePieces * kPieceBytes) return hash.Add(data.data(), data.size());
  for (uint64_t piece = 0; piece < kSamplePieces; ++piece) {
    hash.Add(data.data() + (data.size() - kPieceBytes) / (kSamplePieces - 1) * piece, kPieceBytes);
  }
}

}  // namespace

void AddSamples(const StoredTensor& tensor, Sha256& hash) {
  if (tensor.file != nullptr) AddSample(tensor.file->bytes().subspan(tensor.offset, tensor.bytes), hash);
  for (const StoredTensor& part : tensor.parts) AddSamples(part, hash);
  if (tensor.linear != nullptr) {
    AddSample(tensor.linear->weights.data(), hash);
    AddSample(tensor.linear->zeros.data(), hash);
    AddSample(tensor.linear->scales.data(), hash);
    // The whole of it: the maths of all columns rests on each number.
    if (const FilePiece& index = tensor.linear->index; index.file != nullptr)
      hash.Add(index.data().data(), index.bytes);
  }
  for (const auto& adjustment : tensor.adjustments) {
    hash.AddLine(adjustment->Describe());
    for (const StoredTensor* input : adjustment->inputs()) AddSamples(*input, hash);
  }
}

}  // namespace bellwether
