#include "worker/weights/shard_loader.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "model/layer_tensors.h"
#include "model/shard_size.h"
#include "model/streamed_layers.h"
#include "worker/device/packed_store.h"
#include "worker/thread_pool.h"
#include "worker/weights/load_bytes.h"
#include "worker/weights/piece_hashes.h"
#include "worker/weights/section_images.h"

namespace bellwether {
namespace {

using kernels::MatrixSpec;
using kernels::PackedMatrix;

// Rows are read and packed this many values at a time by each thread, so that the source form of a matrix
// never exists whole.
constexpr int64_t kValuesPerRead = int64_t{1} << 18;

static_assert(kImagePageBytes == kLayerPageBytes);

int64_t RoundDown(int64_t value, int64_t step) { return value / step * step; }

// Of what lies in a file, or in the host's memory.
int64_t StreamedImageBytes(WeightStore& store, const LayerFile* file) {
  return file != nullptr ? file->info().image_bytes : static_cast<int64_t>(store.image().size());
}

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

// Matrices that are packed, kept in one file and streamed together: those of a layer, or those outside the
// layers.
struct Section {
  struct Matrix {
    Part part;
    std::unique_ptr<DeviceMatrix>* out = nullptr;
  };
  std::string name;  // "layer 3"
  std::vector<Matrix> matrices;
  WeightHome home = WeightHome::kDevice;
  bool packed = false;  // whatever form the device reads: it is the host that looks rows up
};

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const Assignment& assignment, Device& device, LoadOptions options,
         ExecutorProgress* progress)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        assignment_(assignment),
        rank_(assignment.rank_layout()),
        device_(device),
        options_(std::move(options)),
        progress_(progress),
        pool_({.threads = options_.threads, .cpus = options_.cpus, .spin_pauses = 0}),  // it waits for files
        images_({.cache = options_.cache,
                 .unwritten = options_.unwritten,
                 .cancelled = options_.cancelled,
                 .pool = &pool_,
                 .progress = progress_}) {}

  absl::Status Load(LoadedShard& shard);

 private:
  absl::Status LoadLayer(int32_t layer, LayerWeights& weights);
  absl::Status LoadEnds(LoadedShard& shard);
  // Of an embedding or a head that is streamed.
  absl::Status LoadPieces(TensorRole role, Range rows, bool packed, LoadedShard& shard,
                          std::vector<std::shared_ptr<const VocabularyPiece>>& pieces);
  // The same layers of what was loaded before, null where there is none; of the rest nothing is kept.
  std::vector<std::shared_ptr<const LayerWeights>> TakePrevious();

  // Its matrices, packed or from the cache; `file` is where a streamed one lies from now on. From now on
  // vectors go to its store, and hashes to `hashes`.
  absl::Status LoadSection(const Section& section, std::shared_ptr<WeightStore>& store,
                           std::shared_ptr<const LayerFile>& file, std::vector<WeightHash>& hashes);
  std::string KeyOf(const Section& section, const std::vector<MatrixSpec>& specs) const;
  absl::StatusOr<std::shared_ptr<WeightStore>> NewStore(const Section& section,
                                                        absl::Span<const MatrixSpec> specs);

  // Vectors stay fp32.
  absl::Status LoadVector(const TensorKey& key, Range range, DeviceVector& out);
  absl::Status KeepVector(const TensorKey& key, Range range, std::vector<float> values, DeviceVector& out);
  // Where the matrix has one.
  absl::Status LoadInputOrder(const TensorKey& key, DeviceVector& out);
  absl::Status LoadNorm(TensorRole role, NormWeights& norm);  // of the ends
  absl::StatusOr<MatrixSpec> SpecOf(const Part& part) const;
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const Part& part, const MatrixSpec& spec);
  absl::Status PackMatrix(const Part& part, PackedMatrix& matrix, PieceHashes& hashes);
  absl::Status PackRows(const Part& part, const TensorInfo& info, Range rows, PackedMatrix& matrix,
                        PieceHashes::Part& hashes) const;
  absl::Status PackFloats(const Part& part, Range rows, PackedMatrix& matrix,
                          PieceHashes::Part& hashes) const;
  absl::Status PackQuantized(const Part& part, bool stored_quantized, Range rows, PackedMatrix& matrix,
                             PieceHashes::Part& hashes) const;
  absl::Status InTime() const;  // Cancelled, if it is
  void CountLoaded(int64_t bytes);

  Part LayerPart(const LayerTensor& tensor, int32_t layer) const;
  Part VocabularyPart(TensorRole role, Range rows) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const Assignment& assignment_;
  const RankLayout& rank_;
  Device& device_;
  LoadOptions options_;
  ExecutorProgress* progress_;
  ThreadPool pool_;
  SectionImages images_;
  // Of the section that is being loaded.
  WeightStore* store_ = nullptr;
  std::vector<WeightHash>* hashes_ = nullptr;
  int64_t bytes_ = 0;
  std::vector<bool> streamed_;  // by layer of the stage
  // That the cache is still to have of what is streamed from there: no room of theirs goes to what is kept
  // for the next start.
  int64_t streamed_files_left_ = 0;
  bool told_of_images_ = false;  // for which the host has no room
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
  hashes.AppendTo(hashes_);
  absl::StatusOr<DeviceVector> kept = store_->Keep(std::move(values));
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
    BW_RETURN_IF_ERROR(InTime());
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

absl::StatusOr<MatrixSpec> Loader::SpecOf(const Part& part) const {
  const TensorInfo* info = checkpoint_.Find(part.key);
  if (info == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(checkpoint_.path(), ": no ", Name(part.key)));
  const TensorFormat format = PackedFormat(part.key, info->format, assignment_.numeric.quantize);
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

absl::StatusOr<std::unique_ptr<DeviceMatrix>> Loader::Pack(const Part& part, const MatrixSpec& spec) {
  PieceHashes hashes = part.NewHashes();
  auto packed = store_->Pack(spec, [&](Range rows, PackedMatrix& matrix) {
    Part some = part;
    some.rows = {part.rows.begin + rows.begin, part.rows.begin + rows.end};
    return PackMatrix(some, matrix, hashes);
  });
  hashes.AppendTo(hashes_);
  return packed;
}

absl::Status Loader::PackMatrix(const Part& part, PackedMatrix& matrix, PieceHashes& hashes) {
  const TensorInfo& info = *checkpoint_.Find(part.key);
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
  return status;
}

absl::Status Loader::InTime() const {
  if (options_.cancelled && options_.cancelled())
    return absl::CancelledError("the weights are no longer wanted");
  return absl::OkStatus();
}

void Loader::CountLoaded(int64_t bytes) {
  bytes_ += bytes;
  if (progress_ != nullptr) progress_->loaded_bytes.fetch_add(bytes);
}

// All that decides on the bytes of an image, in words.
std::string Loader::KeyOf(const Section& section, const std::vector<MatrixSpec>& specs) const {
  std::string key =
      absl::StrCat(section.packed ? PackedImageForm() : device_.image_form(), "\nmodel ",
                   assignment_.model_id, "\nfiles ", checkpoint_.SourceFiles(), "\n", section.name, "\n");
  for (size_t i = 0; i < specs.size(); ++i) {
    const Part& part = section.matrices[i].part;
    const MatrixSpec& spec = specs[i];
    absl::StrAppend(&key, Name(part.key), " rows ", part.rows.begin, "-", part.rows.end, " columns ",
                    part.cols.begin, "-", part.cols.end, " slices ", spec.slices.begin, "-", spec.slices.end,
                    " of ", spec.slices_total, " as ", std::string(Name(spec.format)));
    if (IsQuantized(spec.format)) {
      absl::StrAppend(&key, " groups of ", spec.group, spec.has_offset ? " with offsets" : "",
                      spec.half_scales ? ", fp16" : "");
    }
    key += '\n';
  }
  return key;
}

// What stays on a GPU needs an image for the cache's sake alone: it goes without one where the host has no
// room, not even when the one before has been written.
absl::StatusOr<std::shared_ptr<WeightStore>> Loader::NewStore(const Section& section,
                                                              absl::Span<const MatrixSpec> specs) {
  if (section.packed && !device_.keeps_packed_images()) return NewPackedStore(specs);
  for (int tries = options_.cache != nullptr ? 2 : 0; tries > 0; --tries) {
    auto store = device_.NewWeightStore(specs, section.home, /*with_image=*/true);
    if (section.home != WeightHome::kDevice || !absl::IsResourceExhausted(store.status())) return store;
    if (tries == 1 && !std::exchange(told_of_images_, true)) {
      LogWarning("shard cache: ", section.name,
                 " goes by without, as does what else is as large: ", store.status().message());
    }
    images_.WaitForWriter();
  }
  return device_.NewWeightStore(specs, section.home, /*with_image=*/false);
}

absl::Status Loader::LoadSection(const Section& section, std::shared_ptr<WeightStore>& store,
                                 std::shared_ptr<const LayerFile>& file, std::vector<WeightHash>& hashes) {
  std::vector<MatrixSpec> specs;
  for (const Section::Matrix& matrix : section.matrices) {
    BW_ASSIGN_OR_RETURN(specs.emplace_back(), SpecOf(matrix.part));
  }
  absl::StatusOr<std::shared_ptr<WeightStore>> made = NewStore(section, specs);
  if (!made.ok()) return Annotate(made.status(), section.name);
  store = *std::move(made);
  store_ = store.get();
  hashes_ = &hashes;
  const bool keeps_image = options_.cache != nullptr && !store->image().empty();
  if (section.home == WeightHome::kDrive && !keeps_image) {
    return absl::FailedPreconditionError(
        absl::StrCat(section.name, " is to be streamed from a drive, for which this worker has no ",
                     options_.cache == nullptr ? "shard cache" : "way on its device"));
  }
  const SectionImages::Section image = {
      .name = section.name, .key = keeps_image ? KeyOf(section, specs) : "", .image = store->image()};
  std::shared_ptr<const LayerFile> cached;
  if (keeps_image) {
    BW_ASSIGN_OR_RETURN(cached, images_.Find(image, /*read=*/section.home != WeightHome::kDrive));
  }
  if (cached != nullptr) hashes = cached->info().hashes;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto& [part, out] = section.matrices[i];
    auto kept = cached != nullptr ? store->KeepImage(specs[i]) : Pack(part, specs[i]);
    if (!kept.ok()) return Annotate(kept.status(), Name(part.key));
    *out = *std::move(kept);
    CountLoaded((*out)->bytes());
  }
  const bool unwritten = keeps_image && cached == nullptr;
  if (section.home == WeightHome::kDrive) {
    if (unwritten) {
      BW_ASSIGN_OR_RETURN(cached, images_.Write(image, hashes));
    }
    streamed_files_left_ -= FileBytesMax(static_cast<int64_t>(image.image.size()));
    store->DropImage();
    file = std::move(cached);
    return absl::OkStatus();
  }
  std::shared_ptr<const void> owner = store->image_owner();
  if (owner == nullptr) owner = store;
  if (section.home == WeightHome::kDevice) {
    if (const absl::Status settled = store->Settle(); !settled.ok()) return Annotate(settled, section.name);
  }
  if (unwritten) {
    images_.Keep(image, hashes, std::move(owner), /*stays=*/!store->image().empty(),
                 /*leave_bytes=*/std::max<int64_t>(0, streamed_files_left_));
  }
  return absl::OkStatus();
}

absl::Status Loader::LoadLayer(int32_t layer, LayerWeights& weights) {
  const std::vector<LayerTensor> tensors = LayerTensors(config_);
  const bool streamed = streamed_[layer - assignment_.stage_layout().layers.begin];
  Section section{.name = absl::StrCat("layer ", layer),
                  .home = streamed ? assignment_.stream_home : WeightHome::kDevice};
  for (const LayerTensor& tensor : tensors) {
    if (auto* const matrix = FieldOf(weights, tensor.role).matrix; matrix != nullptr)
      section.matrices.push_back({LayerPart(tensor, layer), matrix});
  }
  BW_RETURN_IF_ERROR(LoadSection(section, weights.store, weights.file, weights.hashes));
  weights.home = section.home;
  if (streamed) weights.image_bytes = StreamedImageBytes(*weights.store, weights.file.get());
  for (const LayerTensor& tensor : tensors) {
    const LayerField field = FieldOf(weights, tensor.role);
    const Part part = LayerPart(tensor, layer);
    const Range bias = IsNorm(tensor.role) ? part.cols : part.rows;
    if (field.vector != nullptr) BW_RETURN_IF_ERROR(LoadVector(part.key, part.cols, *field.vector));
    if (tensor.bias) BW_RETURN_IF_ERROR(LoadVector({tensor.role, layer, /*bias=*/true}, bias, *field.bias));
    if (field.input_order != nullptr) BW_RETURN_IF_ERROR(LoadInputOrder(part.key, *field.input_order));
  }
  return absl::OkStatus();
}

absl::Status Loader::LoadPieces(TensorRole role, Range rows, bool packed, LoadedShard& shard,
                                std::vector<std::shared_ptr<const VocabularyPiece>>& pieces) {
  for (const Range some : VocabularyPieces(rows)) {
    auto piece = std::make_shared<VocabularyPiece>();
    piece->rows = some;
    Section section{.name = absl::StrCat(role == TensorRole::kHead ? "head" : "embedding", " rows ",
                                         some.begin, "-", some.end),
                    .home = assignment_.stream_home,
                    .packed = packed};
    section.matrices.push_back({VocabularyPart(role, some), &piece->matrix});
    BW_RETURN_IF_ERROR(LoadSection(section, piece->store, piece->file, piece->hashes));
    piece->image_bytes = StreamedImageBytes(*piece->store, piece->file.get());
    if (packed)
      piece->panel_bytes = piece->matrix->bytes() / RoundUp(some.size(), kLaneRows) * kernels::kPanelRows;
    if (packed && device_.keeps_packed_images())
      shard.row_buffer_bytes = std::max(shard.row_buffer_bytes, piece->image_bytes);
    shard.streamed_bytes += piece->image_bytes;
    shard.hashes.insert(shard.hashes.end(), piece->hashes.begin(), piece->hashes.end());
    pieces.push_back(std::move(piece));
  }
  return absl::OkStatus();
}

absl::Status Loader::LoadEnds(LoadedShard& shard) {
  const bool first = assignment_.first_stage(), last = assignment_.last_stage();
  const bool one = config_.tied_head && first && last && rank_.embedding_rows == rank_.head_rows;
  const StreamedEnds& streamed = assignment_.streamed_ends;
  if (one && streamed.embedding != streamed.head)
    return absl::InvalidArgumentError("embedding and head are one matrix: both are streamed, or none is");
  shard.head_is_embedding = one;
  const bool in_pieces = first && streamed.embedding && rank_.embedding_rows.size() > 0;
  const bool head_in_pieces = last && streamed.head && rank_.head_rows.size() > 0;
  Section section{.name = "outside the layers"};
  if (first && !in_pieces)
    section.matrices.push_back(
        {VocabularyPart(TensorRole::kEmbedding, rank_.embedding_rows), &shard.embedding});
  if (last && !head_in_pieces && !one)
    section.matrices.push_back({VocabularyPart(TensorRole::kHead, rank_.head_rows), &shard.head});
  std::shared_ptr<const LayerFile> file;
  BW_RETURN_IF_ERROR(LoadSection(section, shard.store, file, shard.hashes));
  if (first && config_.embedding_norm)
    BW_RETURN_IF_ERROR(LoadNorm(TensorRole::kEmbeddingNorm, shard.embedding_norm));
  if (last) BW_RETURN_IF_ERROR(LoadNorm(TensorRole::kFinalNorm, shard.final_norm));
  if (in_pieces) {
    BW_RETURN_IF_ERROR(LoadPieces(TensorRole::kEmbedding, rank_.embedding_rows, /*packed=*/true, shard,
                                  shard.embedding_pieces));
  }
  if (!head_in_pieces) return absl::OkStatus();
  if (one && device_.keeps_packed_images()) {
    shard.head_pieces = shard.embedding_pieces;
    return absl::OkStatus();
  }
  return LoadPieces(one ? TensorRole::kEmbedding : TensorRole::kHead, rank_.head_rows, /*packed=*/false,
                    shard, shard.head_pieces);
}

std::vector<std::shared_ptr<const LayerWeights>> Loader::TakePrevious() {
  const Range layers = assignment_.stage_layout().layers;
  std::vector<std::shared_ptr<const LayerWeights>> taken(layers.size());
  const std::shared_ptr<const LoadedShard> shard = std::move(options_.previous);
  if (shard == nullptr || shard->model_id != assignment_.model_id || shard->rank.slices != rank_.slices ||
      shard->quantize != assignment_.numeric.quantize) {
    return taken;
  }
  const int64_t begin = std::max(layers.begin, shard->layers.begin),
                end = std::min(layers.end, shard->layers.end);
  for (int64_t layer = begin; layer < end; ++layer) {
    const auto& weights = shard->layer_weights[layer - shard->layers.begin];
    const WeightHome home = streamed_[layer - layers.begin] ? assignment_.stream_home : WeightHome::kDevice;
    const bool discarded = weights->file != nullptr && weights->file->discarded();
    if (weights->home == home && !discarded) taken[layer - layers.begin] = weights;
  }
  return taken;
}

absl::Status Loader::Load(LoadedShard& shard) {
  const Range layers = assignment_.stage_layout().layers;
  streamed_ = StreamedLayers(layers.size(), assignment_.streamed_layers);
  std::vector<std::shared_ptr<const LayerWeights>> previous = TakePrevious();
  streamed_files_left_ = StreamedFileBytes(checkpoint_, assignment_, device_);
  BW_RETURN_IF_ERROR(LoadEnds(shard));
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    std::shared_ptr<const LayerWeights> weights = std::move(previous[layer - layers.begin]);
    if (weights != nullptr) {
      CountLoaded(weights->bytes);
      if (weights->file != nullptr) streamed_files_left_ -= FileBytesMax(weights->image_bytes);
    } else {
      auto loaded = std::make_shared<LayerWeights>();
      const int64_t before = bytes_;
      BW_RETURN_IF_ERROR(LoadLayer(static_cast<int32_t>(layer), *loaded));
      loaded->bytes = bytes_ - before;
      weights = std::move(loaded);
    }
    shard.reordered |= !weights->attention_order.empty() || !weights->mlp_order.empty();
    shard.streamed_bytes += weights->image_bytes;
    shard.hashes.insert(shard.hashes.end(), weights->hashes.begin(), weights->hashes.end());
    shard.layer_weights.push_back(std::move(weights));
  }
  shard.bytes = bytes_;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LoadedShard>> LoadShard(const Checkpoint& checkpoint,
                                                             const Assignment& assignment, Device& device,
                                                             LoadOptions options,
                                                             ExecutorProgress* progress) {
  BW_RETURN_IF_ERROR(Validate(assignment.layout, checkpoint.config()));
  if (progress != nullptr) {
    progress->loaded_bytes = 0;
    progress->total_bytes = BytesToLoad(checkpoint, assignment, device);
  }
  auto shard = std::make_shared<LoadedShard>();
  shard->config = checkpoint.config();
  shard->model_id = assignment.model_id;
  shard->layers = assignment.stage_layout().layers;
  shard->rank = assignment.rank_layout();
  shard->quantize = assignment.numeric.quantize;
  shard->streamed_layers = assignment.streamed_layers;
  shard->stream_home = assignment.stream_home;
  shard->streamed_ends = assignment.streamed_ends;
  shard->gpu_limbs = MostGpuLimbs(shard->config, CheckpointFormats(checkpoint), shard->quantize,
                                  shard->layers, assignment.last_stage());
  std::shared_ptr<const LoadedShard>* const unfinished = options.unfinished;
  const absl::Status loaded =
      Loader(checkpoint, assignment, device, std::move(options), progress).Load(*shard);
  if (loaded.ok()) return shard;
  shard->layers.end = shard->layers.begin + static_cast<int64_t>(shard->layer_weights.size());
  shard->complete = false;
  if (unfinished != nullptr && !shard->layer_weights.empty()) *unfinished = std::move(shard);
  return loaded;
}

}  // namespace bellwether
