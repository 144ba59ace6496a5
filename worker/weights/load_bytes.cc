#include "worker/weights/load_bytes.h"

#include "model/shard_size.h"
#include "model/streamed_layers.h"

namespace bellwether {
namespace {

// More than the description of an image takes in its file.
constexpr int64_t kHeaderRoom = int64_t{64} << 10;

EndBytes EndsOf(const Checkpoint& checkpoint, const Assignment& assignment, bool gpu) {
  const auto bytes_of_ends = gpu ? GpuBytesOfEnds : BytesOfEnds;
  return bytes_of_ends(checkpoint.config(), CheckpointFormats(checkpoint), assignment.numeric.quantize,
                       assignment.stage_layout(), assignment.rank,
                       {assignment.first_stage(), assignment.last_stage()});
}

// In files of a piece each, which are whole pages long.
int64_t FileBytesOfPieces(int64_t bytes, Range rows) {
  return bytes + static_cast<int64_t>(VocabularyPieces(rows).size()) * FileBytesMax(kImagePageBytes);
}

}  // namespace

int64_t FileBytesMax(int64_t image_bytes) { return image_bytes + kHeaderRoom; }

int64_t BytesToLoad(const Checkpoint& checkpoint, const Assignment& assignment, const Device& device) {
  const bool gpu = !device.keeps_packed_images();
  const auto shard_bytes = gpu ? GpuShardBytes : ShardBytes;
  const int64_t bytes = shard_bytes(checkpoint.config(), CheckpointFormats(checkpoint),
                                    assignment.numeric.quantize, assignment.stage_layout(), assignment.rank,
                                    {assignment.first_stage(), assignment.last_stage()});
  if (!gpu || !assignment.streamed_ends.embedding) return bytes;
  const EndBytes ends = EndsOf(checkpoint, assignment, gpu);
  return bytes + ends.embedding - (ends.one_matrix ? 0 : ends.embedding_spared);
}

int64_t StreamedFileBytes(const Checkpoint& checkpoint, const Assignment& assignment, const Device& device) {
  if (assignment.stream_home != WeightHome::kDrive) return 0;
  const bool gpu = !device.keeps_packed_images();
  const RankLayout& rank = assignment.rank_layout();
  const Range layers = assignment.stage_layout().layers;
  const std::vector<bool> streamed = StreamedLayers(layers.size(), assignment.streamed_layers);
  int64_t bytes = 0;
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    if (!streamed[layer - layers.begin]) continue;
    bytes +=
        FileBytesMax(LayerImageBytes(checkpoint.config(), CheckpointFormats(checkpoint),
                                     assignment.numeric.quantize, rank, static_cast<int32_t>(layer), gpu));
  }
  const EndBytes ends = EndsOf(checkpoint, assignment, gpu);
  const StreamedEnds& of = assignment.streamed_ends;
  if (of.embedding) bytes += FileBytesOfPieces(ends.embedding, rank.embedding_rows);
  if (of.head && (gpu || !ends.one_matrix)) bytes += FileBytesOfPieces(ends.head, rank.head_rows);
  return bytes;
}

}  // namespace bellwether
