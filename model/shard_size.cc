#include "model/shard_size.h"

#include <algorithm>
#include <vector>

#include "common/check.h"
#include "common/packed_row.h"
#include "common/step.h"
#include "model/gpu_size.h"
#include "model/layer_tensors.h"
#include "model/streamed_layers.h"

namespace bellwether {
namespace {

constexpr int64_t kVectorElementBytes = 4;

// Bytes of one packed row whose segments end at bounds[1], bounds[2] ... (columns of the whole tensor).
int64_t RowBytes(const TensorFormat& format, const std::vector<int64_t>& bounds) {
  int64_t packed_cols = 0, scale_sets = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    if (!IsQuantized(format.format)) {
      packed_cols += RoundUp(bounds[i + 1] - bounds[i], kFloatPadding);
      continue;
    }
    ForEachColumnBlock(bounds[i], bounds[i + 1], /*first_col=*/0, format.group,
                       [&](const ColumnBlock& block) {
                         packed_cols += block.padded();
                         scale_sets += block.new_scales ? 1 : 0;
                       });
  }
  return PackedRowBytes(format.format, packed_cols, scale_sets, format.half_scales, format.has_offset);
}

enum class Form { kPacked, kGpu, kGpuImage };

// Of images, and of the matrices of a CPU in them.
constexpr int64_t kPageBytes = 4096, kCacheLineBytes = 64;
// Columns that a GPU sums on their own, at most (kernels/gpu/device_matrix.h).
constexpr int64_t kGpuSegment = 256, kGpuSliceSegment = 1024;

// Sums up what one rank holds, in the order of worker/weights.
class RankBytes {
 public:
  RankBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize, SliceRange slices,
            Form form = Form::kPacked)
      : config_(config), formats_(formats), quantize_(quantize), slices_(slices), form_(form) {}

  int64_t Layer(int32_t layer) const;
  int64_t LayerImage(int32_t layer) const;
  // Bytes of `rows` rows of a matrix that is not cut along its columns.
  int64_t ColumnParallel(TensorKey key, int64_t rows) const {
    const std::vector<int64_t> bounds = {0, config_.hidden};
    if (form_ == Form::kPacked) return RoundUp(rows, kLaneRows) * RowBytes(Format(key), bounds);
    return form_ == Form::kGpu ? GpuMatrixBytes(Format(key), rows, bounds, kGpuSegment)
                               : GpuMatrixImageBytes(Format(key), rows, bounds, kGpuSegment);
  }
  // One row as it is stored, without the padding to 16 rows.
  int64_t OneRow(TensorKey key) const { return RowBytes(Format(key), {0, config_.hidden}); }
  int64_t Norm() const { return config_.hidden * kVectorElementBytes * (config_.layer_norm ? 2 : 1); }

 private:
  TensorFormat Format(const TensorKey& key) const {
    return PackedFormat(key, formats_.FormatOf(key), quantize_);
  }
  int64_t RowParallel(TensorKey key, const TensorPart& part) const;

  const ModelConfig& config_;
  const TensorFormats& formats_;
  const Quantize quantize_;
  const SliceRange slices_;
  const Form form_;
};

int64_t RankBytes::RowParallel(TensorKey key, const TensorPart& part) const {
  if (form_ == Form::kPacked)
    return RoundUp(part.rows.size(), kLaneRows) * RowBytes(Format(key), part.slice_bounds);
  const int64_t segment = SliceCount(config_) > 1 ? kGpuSliceSegment : kGpuSegment;
  return form_ == Form::kGpu ? GpuMatrixBytes(Format(key), part.rows.size(), part.slice_bounds, segment)
                             : GpuMatrixImageBytes(Format(key), part.rows.size(), part.slice_bounds, segment);
}

int64_t RankBytes::Layer(int32_t layer) const {
  int64_t bytes = 0;
  for (const LayerTensor& tensor : LayerTensors(config_)) {
    const TensorPart part = PartOf(config_, tensor.split, slices_);
    if (IsNorm(tensor.role)) {
      bytes += part.cols.size() * kVectorElementBytes * (tensor.bias ? 2 : 1);
      continue;
    }
    bytes += IsRowParallel(tensor.split) ? RowParallel({tensor.role, layer}, part)
                                         : ColumnParallel({tensor.role, layer}, part.rows.size());
    if (tensor.bias) bytes += part.rows.size() * kVectorElementBytes;
    if (HoldsInputOrder(tensor.role) && Format({tensor.role, layer}).reordered)
      bytes += part.cols.size() * kVectorElementBytes;
  }
  return bytes;
}

int64_t RankBytes::LayerImage(int32_t layer) const {
  int64_t bytes = 0;
  for (const LayerTensor& tensor : LayerTensors(config_)) {
    if (IsNorm(tensor.role)) continue;
    const TensorPart part = PartOf(config_, tensor.split, slices_);
    bytes += RoundUp(IsRowParallel(tensor.split) ? RowParallel({tensor.role, layer}, part)
                                                 : ColumnParallel({tensor.role, layer}, part.rows.size()),
                     kCacheLineBytes);
  }
  return RoundUp(bytes, kPageBytes);
}

int64_t LayersBytes(const RankBytes& bytes, Range layers) {
  int64_t sum = 0;
  for (int64_t layer = layers.begin; layer < layers.end; ++layer)
    sum += bytes.Layer(static_cast<int32_t>(layer));
  return sum;
}

const RankLayout& RankOf(const StageLayout& stage, int rank) {
  BW_CHECK(0 <= rank && rank < static_cast<int>(stage.ranks.size()));
  return stage.ranks[rank];
}

// The same rows of the same matrix: stored once.
bool HeadIsEmbedding(const ModelConfig& config, const RankLayout& layout, StageEnds ends) {
  return config.tied_head && ends.first_stage && ends.last_stage && layout.embedding_rows == layout.head_rows;
}

TensorRole HeadRole(const EndBytes& ends) {
  return ends.one_matrix ? TensorRole::kEmbedding : TensorRole::kHead;
}

int64_t SumShard(const ModelConfig& config, const RankBytes& bytes, Range layers, const RankLayout& layout,
                 StageEnds ends) {
  int64_t sum = LayersBytes(bytes, layers);
  if (ends.first_stage) {
    sum += bytes.ColumnParallel({TensorRole::kEmbedding}, layout.embedding_rows.size());
    if (config.embedding_norm) sum += bytes.Norm();
  }
  if (ends.last_stage) {
    sum += bytes.Norm();
    if (!HeadIsEmbedding(config, layout, ends))
      sum += bytes.ColumnParallel({TensorRole::kHead}, layout.head_rows.size());
  }
  return sum;
}

}  // namespace

TensorFormat CheckpointFormats::FormatOf(const TensorKey& key) const {
  const TensorInfo* info = checkpoint_.Find(key);
  return info == nullptr ? TensorFormat{} : info->format;
}

TensorFormat PackedFormat(const TensorKey& key, const TensorFormat& stored, Quantize quantize) {
  if (key.bias || IsNorm(key.role)) return TensorFormat{};
  if (quantize == Quantize::kNone || IsQuantized(stored.format)) return stored;
  const bool at_the_ends = key.role == TensorRole::kEmbedding || key.role == TensorRole::kHead;
  const bool int4 = quantize == Quantize::kInt4 && !at_the_ends;
  return QuantizeFormat(int4 ? WeightFormat::kInt4 : WeightFormat::kInt8);
}

DType DefaultKvType(const TensorFormats& formats, Quantize quantize) {
  const TensorKey key{.role = TensorRole::kQuery};
  return PackedFormat(key, formats.FormatOf(key), quantize).format == WeightFormat::kF32 ? DType::kF32
                                                                                         : DType::kBF16;
}

int MostGpuLimbs(const ModelConfig& config, const TensorFormats& formats, Quantize quantize, Range layers,
                 bool last_stage) {
  int most = 1;
  const auto take = [&](const TensorKey& key) {
    most = std::max(most, GpuLimbs(PackedFormat(key, formats.FormatOf(key), quantize).format));
  };
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (const LayerTensor& tensor : LayerTensors(config)) {
      if (!IsNorm(tensor.role)) take({tensor.role, static_cast<int32_t>(layer)});
    }
  }
  if (last_stage) take({config.tied_head ? TensorRole::kEmbedding : TensorRole::kHead});
  return most;
}

int64_t ShardBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                   const StageLayout& stage, int rank, StageEnds ends) {
  const RankLayout& layout = RankOf(stage, rank);
  return SumShard(config, RankBytes(config, formats, quantize, layout.slices), stage.layers, layout, ends);
}

int64_t GpuShardBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                      const StageLayout& stage, int rank, StageEnds ends) {
  const RankLayout& layout = RankOf(stage, rank);
  return SumShard(config, RankBytes(config, formats, quantize, layout.slices, Form::kGpu), stage.layers,
                  layout, ends);
}

int64_t LayerImageBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                        const RankLayout& rank, int32_t layer, bool gpu) {
  const Form form = gpu ? Form::kGpuImage : Form::kPacked;
  return RankBytes(config, formats, quantize, rank.slices, form).LayerImage(layer);
}

EndBytes BytesOfEnds(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                     const StageLayout& stage, int rank, StageEnds ends) {
  const RankLayout& layout = RankOf(stage, rank);
  const RankBytes packed(config, formats, quantize, layout.slices);
  EndBytes result{.one_matrix = HeadIsEmbedding(config, layout, ends)};
  const auto add = [&](TensorRole role, Range rows, int64_t& whole, int64_t& largest) {
    for (const Range piece : VocabularyPieces(rows)) {
      const int64_t one = packed.ColumnParallel({role}, piece.size());
      whole += one;
      largest = std::max(largest, one);
    }
  };
  if (ends.first_stage)
    add(TensorRole::kEmbedding, layout.embedding_rows, result.embedding, result.embedding_piece);
  if (ends.last_stage) add(HeadRole(result), layout.head_rows, result.head, result.head_piece);
  result.embedding_spared = result.embedding;
  result.head_spared = result.head;
  return result;
}

EndBytes GpuBytesOfEnds(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                        const StageLayout& stage, int rank, StageEnds ends) {
  const RankLayout& layout = RankOf(stage, rank);
  const RankBytes on_gpu(config, formats, quantize, layout.slices, Form::kGpu),
      images(config, formats, quantize, layout.slices, Form::kGpuImage);
  EndBytes result = BytesOfEnds(config, formats, quantize, stage, rank, ends);
  result.rows_on_host = true;
  if (ends.first_stage)
    result.embedding_spared = on_gpu.ColumnParallel({TensorRole::kEmbedding}, layout.embedding_rows.size());
  if (!ends.last_stage) return result;
  const TensorKey head = {HeadRole(result)};
  result.head = result.head_piece = 0;
  result.head_spared = on_gpu.ColumnParallel(head, layout.head_rows.size());
  for (const Range piece : VocabularyPieces(layout.head_rows)) {
    const int64_t bytes = images.ColumnParallel(head, piece.size()), image = RoundUp(bytes, kPageBytes);
    result.head += image;
    result.head_piece = std::max(result.head_piece, image);
    result.head_spared -= on_gpu.ColumnParallel(head, piece.size()) - bytes;
  }
  return result;
}

int64_t BytesReadPerToken(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                          const StageLayout& stage, int rank, bool last_stage) {
  const RankLayout& layout = RankOf(stage, rank);
  const RankBytes bytes(config, formats, quantize, layout.slices);
  int64_t sum = LayersBytes(bytes, stage.layers);
  if (layout.embedding_rows.size() > 0) sum += bytes.OneRow({TensorRole::kEmbedding});
  if (last_stage) sum += bytes.Norm() + bytes.ColumnParallel({TensorRole::kHead}, layout.head_rows.size());
  return sum;
}

int64_t OperationsPerToken(const ModelConfig& config, const StageLayout& stage, int rank, bool last_stage) {
  const RankLayout& layout = RankOf(stage, rank);
  int64_t elements = 0;
  for (const LayerTensor& tensor : LayerTensors(config)) {
    if (IsNorm(tensor.role)) continue;
    const TensorPart part = PartOf(config, tensor.split, layout.slices);
    elements += part.rows.size() * part.cols.size();
  }
  elements *= stage.layers.size();
  if (last_stage) elements += layout.head_rows.size() * config.hidden;
  return 2 * elements;
}

int64_t KvBlockBytes(const ModelConfig& config, DType kv_type, const StageLayout& stage, int rank) {
  const int64_t kv_heads = SliceKvHeads(config, RankOf(stage, rank).slices).size();
  return stage.layers.size() * kv_heads * 2 * kKvBlockTokens * config.head_dim * SizeOf(kv_type);
}

}  // namespace bellwether
