#include "worker/weights/shard_loader.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/mutex.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "model/layer_tensors.h"
#include "model/shard_size.h"
#include "worker/thread_pool.h"
#include "worker/weights/piece_hashes.h"

namespace bellwether {
namespace {

using kernels::MatrixSpec;
using kernels::PackedMatrix;

// Rows are read and packed this many values at a time by each thread, so that the source form of a matrix
// never exists whole.
constexpr int64_t kValuesPerRead = int64_t{1} << 18;

// Rows of embedding and head are hashed in pieces of as many.
constexpr int64_t kVocabularyPiece = 4096;

int64_t RoundDown(int64_t value, int64_t step) { return value / step * step; }

// Part of a tensor that one rank holds, and how it is cut.
struct Part {
  TensorKey key;
  Range rows;
  Range cols;
  // Row-parallel matrices: the slices and their bounds in columns of the whole tensor.
  SliceRange slices = {0, 1};
  int slices_total = 1;
  std::vector<int64_t> slice_bounds;
  // Others: where their rows are cut for hashes, the same on every layout but for the ends.
  std::vector<int64_t> row_bounds;

  bool row_parallel() const { return !slice_bounds.empty(); }
  PieceHashes NewHashes() const {
    return row_parallel() ? PieceHashes(key, PieceHashes::Cut::kColumns, slice_bounds)
                          : PieceHashes(key, PieceHashes::Cut::kRows, row_bounds);
  }
};

// Every `step`th row between the ends.
std::vector<int64_t> RowBounds(Range rows, int64_t step) {
  std::vector<int64_t> bounds = {rows.begin};
  for (int64_t row = RoundDown(rows.begin, step) + step; row < rows.end; row += step) bounds.push_back(row);
  bounds.push_back(rows.end);
  return bounds;
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const Assignment& assignment, const LoadOptions& options,
         WeightStore& store, ExecutorProgress* progress)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        assignment_(assignment),
        rank_(assignment.rank_layout()),
        store_(store),
        progress_(progress),
        cancelled_(options.cancelled),
        pool_({.threads = options.threads, .cpus = options.cpus, .spin_pauses = 0}) {}  // it waits for files

  absl::Status Load(LoadedShard& shard);

 private:
  absl::Status LoadLayer(int32_t layer, LayerWeights& weights);
  absl::Status LoadEnds(LoadedShard& shard);

  // Vectors stay fp32.
  absl::Status LoadVector(const TensorKey& key, Range range, DeviceVector& out);
  absl::Status KeepVector(const TensorKey& key, Range range, std::vector<float> values, DeviceVector& out);
  // Where the matrix has one.
  absl::Status LoadInputOrder(const TensorKey& key, DeviceVector& out);
  absl::Status LoadNorm(TensorRole role, NormWeights& norm);  // of the ends
  absl::Status LoadMatrix(const Part& part, std::unique_ptr<DeviceMatrix>& out);
  absl::Status PackMatrix(const Part& part, const TensorInfo& info, PackedMatrix& matrix);
  MatrixSpec SpecOf(const Part& part, const TensorInfo& info) const;
  absl::Status PackRows(const Part& part, const TensorInfo& info, Range rows, PackedMatrix& matrix,
                        PieceHashes::Part& hashes) const;
  absl::Status PackFloats(const Part& part, Range rows, PackedMatrix& matrix,
                          PieceHashes::Part& hashes) const;
  absl::Status PackQuantized(const Part& part, bool stored_quantized, Range rows, PackedMatrix& matrix,
                             PieceHashes::Part& hashes) const;

  Part LayerPart(const LayerTensor& tensor, int32_t layer) const;
  Part VocabularyPart(TensorRole role, Range rows) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const Assignment& assignment_;
  const RankLayout& rank_;
  WeightStore& store_;
  ExecutorProgress* progress_;
  const std::function<bool()> cancelled_;
  ThreadPool pool_;
  std::vector<WeightHash> hashes_;
  int64_t bytes_ = 0;
};

Part Loader::LayerPart(const LayerTensor& tensor, int32_t layer) const {
  TensorPart held = PartOf(config_, tensor.split, rank_.slices);
  Part part{.key = {tensor.role, layer}, .rows = held.rows, .cols = held.cols};
  if (IsRowParallel(tensor.split)) {
    part.slices = rank_.slices;
    part.slices_total = SliceCount(config_);
    part.slice_bounds = std::move(held.slice_bounds);
  } else {
    part.row_bounds =
        held.slice_bounds.empty() ? RowBounds(held.rows, config_.head_dim) : std::move(held.slice_bounds);
  }
  return part;
}

Part Loader::VocabularyPart(TensorRole role, Range rows) const {
  return {.key = {role},
          .rows = rows,
          .cols = {0, config_.hidden},
          .row_bounds = RowBounds(rows, kVocabularyPiece)};
}

absl::Status Loader::LoadVector(const TensorKey& key, Range range, DeviceVector& out) {
  const TensorInfo* info = checkpoint_.Find(key);
  if (info == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(checkpoint_.path(), ": no ", Name(key)));
  }
  std::vector<float> values(range.size());
  BW_RETURN_IF_ERROR(checkpoint_.ReadFloats(key, {0, 1, range.begin, range.end}, absl::MakeSpan(values)));
  return KeepVector(key, range, std::move(values), out);
}

absl::Status Loader::LoadInputOrder(const TensorKey& key, DeviceVector& out) {
  const TensorInfo* info = checkpoint_.Find(key);
  if (info == nullptr || info->input_order == nullptr) return absl::OkStatus();
  return KeepVector(key, {0, info->cols}, {info->input_order->begin(), info->input_order->end()}, out);
}

absl::Status Loader::KeepVector(const TensorKey& key, Range range, std::vector<float> values,
                                DeviceVector& out) {
  PieceHashes hashes(key, PieceHashes::Cut::kColumns, {range.begin, range.end});
  PieceHashes::Part sum(&hashes);
  sum.AddRow(0, range.begin, range.end,
             [&](int64_t, int64_t, uint64_t seed) { return HashFloats(values, seed); });
  hashes.Add(sum);
  hashes.AppendTo(&hashes_);
  absl::StatusOr<DeviceVector> kept = store_.Keep(std::move(values));
  if (!kept.ok()) return Annotate(kept.status(), Name(key));
  out = *kept;
  bytes_ += range.size() * static_cast<int64_t>(sizeof(float));
  return absl::OkStatus();
}

absl::Status Loader::LoadNorm(TensorRole role, NormWeights& norm) {
  const Range all = {0, config_.hidden};
  BW_RETURN_IF_ERROR(LoadVector({role}, all, norm.weight));
  if (!config_.layer_norm) return absl::OkStatus();
  return LoadVector({role, 0, /*bias=*/true}, all, norm.bias);
}

absl::Status Loader::PackFloats(const Part& part, Range rows, PackedMatrix& matrix,
                                PieceHashes::Part& hashes) const {
  std::vector<float> values(rows.size() * part.cols.size());
  BW_RETURN_IF_ERROR(checkpoint_.ReadFloats(part.key, {rows.begin, rows.end, part.cols.begin, part.cols.end},
                                            absl::MakeSpan(values)));
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* source = values.data() + (row - rows.begin) * part.cols.size();
    matrix.SetRow(row - part.rows.begin, absl::MakeConstSpan(source, part.cols.size()));
    hashes.AddRow(row, part.cols.begin, part.cols.end, [&](int64_t begin, int64_t end, uint64_t seed) {
      return HashFloats(absl::MakeConstSpan(source + (begin - part.cols.begin), end - begin), seed);
    });
  }
  return absl::OkStatus();
}

// Weight groups count from the row's start, so the columns are read from group bound to group bound: a group
// that a slice cuts has the same scale on both sides.
absl::Status Loader::PackQuantized(const Part& part, bool stored_quantized, Range rows, PackedMatrix& matrix,
                                   PieceHashes::Part& hashes) const {
  const int group = matrix.spec().group;
  const int64_t row_end = checkpoint_.Find(part.key)->cols;
  const Range cols = {RoundDown(part.cols.begin, group), std::min(RoundUp(part.cols.end, group), row_end)};
  const TensorWindow window = {rows.begin, rows.end, cols.begin, cols.end};
  QuantizedRows read;
  if (stored_quantized) {
    BW_ASSIGN_OR_RETURN(read, checkpoint_.ReadQuantized(part.key, window));
    for (int64_t row = 0; row < rows.size(); ++row) {
      hashes.AddRow(rows.begin + row, part.cols.begin, part.cols.end,
                    [&](int64_t begin, int64_t end, uint64_t seed) {
                      const Range columns = {begin - cols.begin, end - cols.begin};
                      return HashQuantized(read, row, cols.size(), group, columns, seed);
                    });
    }
  } else {
    std::vector<float> values(rows.size() * cols.size());
    BW_RETURN_IF_ERROR(checkpoint_.ReadFloats(part.key, window, absl::MakeSpan(values)));
    for (int64_t row = 0; row < rows.size(); ++row) {
      const auto values_of_row = absl::MakeConstSpan(values).subspan(row * cols.size(), cols.size());
      hashes.AddRow(rows.begin + row, part.cols.begin, part.cols.end,
                    [&](int64_t begin, int64_t end, uint64_t seed) {
                      return HashFloats(values_of_row.subspan(begin - cols.begin, end - begin), seed);
                    });
    }
    read = QuantizeRows(values, rows.size(), cols.size(), matrix.format());
  }
  const int64_t groups = RoundUp(cols.size(), group) / group;
  for (int64_t row = 0; row < rows.size(); ++row) {
    matrix.SetRow(rows.begin + row - part.rows.begin,
                  kernels::QuantizedSpan{
                      .q = read.q.data() + row * cols.size() + (part.cols.begin - cols.begin),
                      .scales = read.scales.data() + row * groups,
                      .offsets = read.offsets.empty() ? nullptr : read.offsets.data() + row * groups});
  }
  return absl::OkStatus();
}

absl::Status Loader::PackRows(const Part& part, const TensorInfo& info, Range rows, PackedMatrix& matrix,
                              PieceHashes::Part& hashes) const {
  if (part.cols.size() == 0) return absl::OkStatus();
  const int64_t rows_per_read = std::max<int64_t>(1, kValuesPerRead / part.cols.size());
  for (int64_t begin = rows.begin; begin < rows.end; begin += rows_per_read) {
    if (cancelled_ && cancelled_()) return absl::CancelledError("the weights are no longer wanted");
    const Range some = {begin, std::min(begin + rows_per_read, rows.end)};
    if (IsQuantized(matrix.format())) {
      BW_RETURN_IF_ERROR(PackQuantized(part, IsQuantized(info.format.format), some, matrix, hashes));
    } else {
      BW_RETURN_IF_ERROR(PackFloats(part, some, matrix, hashes));
    }
    if (progress_ != nullptr) progress_->counter.fetch_add(1);
  }
  return absl::OkStatus();
}

MatrixSpec Loader::SpecOf(const Part& part, const TensorInfo& info) const {
  const TensorFormat format = PackedFormat(part.key, info.format, assignment_.numeric.quantize);
  MatrixSpec spec{.rows = part.rows.size(),
                  .cols = part.cols.size(),
                  .format = format.format,
                  .has_offset = format.has_offset,
                  .half_scales = format.half_scales,
                  .first_col = part.cols.begin,
                  .slices = part.slices,
                  .slices_total = part.slices_total};
  if (IsQuantized(format.format)) spec.group = format.group;
  for (int64_t bound : part.slice_bounds) spec.slice_bounds.push_back(bound - part.cols.begin);
  return spec;
}

absl::Status Loader::PackMatrix(const Part& part, const TensorInfo& info, PackedMatrix& matrix) {
  PieceHashes hashes = part.NewHashes();
  Mutex mutex;
  absl::Status status;
  pool_.ParallelFor(part.rows.size(), [&](int64_t begin, int64_t end) {
    PieceHashes::Part sums(&hashes);
    const absl::Status packed =
        PackRows(part, info, {part.rows.begin + begin, part.rows.begin + end}, matrix, sums);
    hashes.Add(sums);
    MutexLock lock(&mutex);
    status.Update(packed);
  });
  checkpoint_.DropPages(part.key);
  hashes.AppendTo(&hashes_);
  return status;
}

absl::Status Loader::LoadMatrix(const Part& part, std::unique_ptr<DeviceMatrix>& out) {
  const TensorInfo* info = checkpoint_.Find(part.key);
  if (info == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(checkpoint_.path(), ": no ", Name(part.key)));
  absl::StatusOr<PackedMatrix> matrix = store_.NewMatrix(SpecOf(part, *info));
  absl::Status status = matrix.status();
  if (status.ok()) status = PackMatrix(part, *info, *matrix);
  if (!status.ok()) return Annotate(status, Name(part.key));
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> kept = store_.Keep(*std::move(matrix));
  if (!kept.ok()) return Annotate(kept.status(), Name(part.key));
  out = *std::move(kept);
  bytes_ += out->bytes();
  if (progress_ != nullptr) progress_->loaded_bytes.fetch_add(out->bytes());
  return absl::OkStatus();
}

absl::Status Loader::LoadLayer(int32_t layer, LayerWeights& weights) {
  for (const LayerTensor& tensor : LayerTensors(config_)) {
    const LayerField field = FieldOf(weights, tensor.role);
    const Part part = LayerPart(tensor, layer);
    const Range bias = IsNorm(tensor.role) ? part.cols : part.rows;
    if (field.vector != nullptr) BW_RETURN_IF_ERROR(LoadVector(part.key, part.cols, *field.vector));
    if (field.matrix != nullptr) BW_RETURN_IF_ERROR(LoadMatrix(part, *field.matrix));
    if (tensor.bias) BW_RETURN_IF_ERROR(LoadVector({tensor.role, layer, /*bias=*/true}, bias, *field.bias));
    if (field.input_order != nullptr) BW_RETURN_IF_ERROR(LoadInputOrder(part.key, *field.input_order));
  }
  return absl::OkStatus();
}

absl::Status Loader::LoadEnds(LoadedShard& shard) {
  if (assignment_.first_stage()) {
    BW_RETURN_IF_ERROR(
        LoadMatrix(VocabularyPart(TensorRole::kEmbedding, rank_.embedding_rows), shard.embedding));
    if (config_.embedding_norm)
      BW_RETURN_IF_ERROR(LoadNorm(TensorRole::kEmbeddingNorm, shard.embedding_norm));
  }
  if (assignment_.last_stage()) {
    BW_RETURN_IF_ERROR(LoadNorm(TensorRole::kFinalNorm, shard.final_norm));
    shard.head_is_embedding =
        config_.tied_head && assignment_.first_stage() && rank_.embedding_rows == rank_.head_rows;
    if (!shard.head_is_embedding) {
      BW_RETURN_IF_ERROR(LoadMatrix(VocabularyPart(TensorRole::kHead, rank_.head_rows), shard.head));
    }
  }
  return absl::OkStatus();
}

absl::Status Loader::Load(LoadedShard& shard) {
  const Range layers = assignment_.stage_layout().layers;
  shard.layer_weights.resize(layers.size());
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    LayerWeights& weights = shard.layer_weights[layer - layers.begin];
    BW_RETURN_IF_ERROR(LoadLayer(static_cast<int32_t>(layer), weights));
    shard.reordered |= !weights.attention_order.empty() || !weights.mlp_order.empty();
  }
  BW_RETURN_IF_ERROR(LoadEnds(shard));
  shard.hashes = std::move(hashes_);
  shard.bytes = bytes_;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LoadedShard>> LoadShard(const Checkpoint& checkpoint,
                                                             const Assignment& assignment, Device& device,
                                                             const LoadOptions& options,
                                                             ExecutorProgress* progress) {
  BW_RETURN_IF_ERROR(Validate(assignment.layout, checkpoint.config()));
  const int64_t bytes = ShardBytes(checkpoint.config(), CheckpointFormats(checkpoint),
                                   assignment.numeric.quantize, assignment.stage_layout(), assignment.rank,
                                   {assignment.first_stage(), assignment.last_stage()});
  if (progress != nullptr) {
    progress->loaded_bytes = 0;
    progress->total_bytes = bytes;
  }
  auto shard = std::make_shared<LoadedShard>();
  BW_ASSIGN_OR_RETURN(shard->store, device.NewWeightStore(bytes));
  shard->config = checkpoint.config();
  shard->model_id = assignment.model_id;
  shard->layers = assignment.stage_layout().layers;
  shard->rank = assignment.rank_layout();
  shard->quantize = assignment.numeric.quantize;
  BW_RETURN_IF_ERROR(Loader(checkpoint, assignment, options, *shard->store, progress).Load(*shard));
  return shard;
}

}  // namespace bellwether
