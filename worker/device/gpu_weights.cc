#include "worker/device/gpu_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/packed_row.h"
#include "common/status.h"
#include "model/gpu_size.h"
#include "worker/thread_pool.h"

namespace bellwether {
namespace {

// Of values and of scales in an image: as that of memory that the runtime gives.
constexpr int64_t kImageAlignment = 256;

// The tables of a matrix in one piece of memory.
class TableWriter {
 public:
  template <typename T>
  int64_t Add(const std::vector<T>& values) {
    const size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return static_cast<int64_t>(at);
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

int64_t BlockScaleBytes(const gpu::DeviceForm& form) { return gpu::kBlockTiles * form.tile_scale_bytes(); }
// With its scales and offsets.
int64_t BlockBytes(const gpu::DeviceForm& form) {
  return form.block_value_bytes() + BlockScaleBytes(form) * (form.has_offset ? 2 : 1);
}
// That a piece of so many bytes has.
int64_t BlocksAtOnce(const gpu::DeviceForm& form, int64_t bytes) {
  const int64_t blocks = RoundUp(form.tiles, gpu::kBlockTiles) / gpu::kBlockTiles;
  return std::clamp<int64_t>(bytes / std::max<int64_t>(1, BlockBytes(form)), 1, std::max<int64_t>(1, blocks));
}

// From first to last the rows of whole blocks, so many of them at once, as the host packs them.
absl::Status ForEachPiece(
    const kernels::MatrixSpec& spec, int64_t blocks, WeightStore::FillRows fill,
    absl::FunctionRef<absl::Status(const kernels::PackedMatrix& packed, Range tiles)> use) {
  const int64_t rows_at_once = blocks * gpu::kBlockTiles * gpu::kTileRows;
  for (int64_t row = 0; row < spec.rows; row += rows_at_once) {
    const Range rows = {row, std::min(row + rows_at_once, spec.rows)};
    kernels::MatrixSpec some = spec;
    some.rows = rows.size();
    BW_ASSIGN_OR_RETURN(kernels::PackedMatrix packed, kernels::PackedMatrix::Create(std::move(some)));
    BW_RETURN_IF_ERROR(fill(rows, packed));
    const int64_t tile = row / gpu::kTileRows;
    BW_RETURN_IF_ERROR(use(packed, {tile, tile + RoundUp(rows.size(), gpu::kTileRows) / gpu::kTileRows}));
  }
  return absl::OkStatus();
}

// All tiles of `packed`, to `place` and behind it.
void PackTiles(const kernels::PackedMatrix& packed, const gpu::DeviceForm& form, const gpu::TilePlace& place,
               ThreadPool& pool) {
  pool.ParallelFor(RoundUp(packed.rows(), gpu::kTileRows) / gpu::kTileRows, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      gpu::TilePlace at = place;
      at.tile += tile;
      gpu::PackTile(packed, form, tile, at);
    }
  });
}

}  // namespace

absl::StatusOr<GpuMemory> GpuMemory::Allocate(std::shared_ptr<gpu::Runtime> runtime, int64_t bytes) {
  GpuMemory memory;
  if (bytes == 0) return memory;
  BW_ASSIGN_OR_RETURN(void* data, runtime->Allocate(bytes));
  memory.runtime_ = std::move(runtime);
  memory.data_ = static_cast<char*>(data);
  memory.bytes_ = bytes;
  return memory;
}
GpuMemory& GpuMemory::operator=(GpuMemory&& other) noexcept {
  std::swap(runtime_, other.runtime_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
GpuMemory::~GpuMemory() {
  if (data_ != nullptr) runtime_->Free(data_);
}

absl::StatusOr<PinnedMemory> PinnedMemory::Allocate(std::shared_ptr<gpu::Runtime> runtime, int64_t bytes) {
  PinnedMemory memory;
  if (bytes == 0) return memory;
  BW_ASSIGN_OR_RETURN(void* data, runtime->AllocateHost(bytes));
  memory.runtime_ = std::move(runtime);
  memory.data_ = static_cast<char*>(data);
  memory.bytes_ = bytes;
  return memory;
}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(runtime_, other.runtime_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) runtime_->FreeHost(data_);
}

absl::StatusOr<int64_t> GpuMatrix::ImageBytes(const kernels::MatrixSpec& spec) {
  BW_ASSIGN_OR_RETURN(const gpu::DeviceForm form, gpu::DeviceFormOf(spec));
  return RoundUp(form.value_bytes(), kImageAlignment) +
         RoundUp(form.scale_bytes() * (form.has_offset ? 2 : 1), kImageAlignment);
}

absl::StatusOr<std::unique_ptr<GpuMatrix>> GpuMatrix::CreateForImage(
    const std::shared_ptr<gpu::Runtime>& runtime, const kernels::MatrixSpec& spec) {
  auto matrix = std::unique_ptr<GpuMatrix>(new GpuMatrix);
  BW_ASSIGN_OR_RETURN(matrix->form_, gpu::DeviceFormOf(spec));
  matrix->group_ = spec.group;
  const gpu::DeviceForm& form = matrix->form_;
  gpu::WeightView& view = matrix->view_;
  view.rows = static_cast<int32_t>(form.rows);
  view.tiles = form.tiles;
  view.half_scales = form.half_scales;
  BW_RETURN_IF_ERROR(matrix->CopyTables(runtime));
  return matrix;
}

absl::StatusOr<std::unique_ptr<GpuMatrix>> GpuMatrix::Reserve(const std::shared_ptr<gpu::Runtime>& runtime,
                                                              const kernels::MatrixSpec& spec) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> matrix, CreateForImage(runtime, spec));
  BW_ASSIGN_OR_RETURN(matrix->values_, GpuMemory::Allocate(runtime, matrix->form_.value_bytes()));
  BW_ASSIGN_OR_RETURN(matrix->scales_, GpuMemory::Allocate(runtime, matrix->all_scale_bytes()));
  matrix->PlaceAt(matrix->values_.data(), matrix->scales_.data());
  return matrix;
}

void GpuMatrix::PlaceAt(const char* values, const char* scales) {
  view_.values = values;
  view_.scales = scales;
  view_.offsets = form_.has_offset && scales != nullptr ? scales + form_.scale_bytes() : nullptr;
}

void GpuMatrix::MoveTo(const char* image) {
  PlaceAt(image, image == nullptr ? nullptr : image + RoundUp(form_.value_bytes(), kImageAlignment));
}

absl::StatusOr<std::unique_ptr<GpuMatrix>> GpuMatrix::Create(const std::shared_ptr<gpu::Runtime>& runtime,
                                                             const kernels::MatrixSpec& spec,
                                                             WeightStore::FillRows fill, int threads,
                                                             const PinnedMemory& staging) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> matrix, Reserve(runtime, spec));
  BW_RETURN_IF_ERROR(matrix->CopyPieces(*runtime, spec, fill, threads, staging));
  return matrix;
}

absl::StatusOr<std::unique_ptr<GpuMatrix>> GpuMatrix::CreateRandom(
    const std::shared_ptr<gpu::Runtime>& runtime, const kernels::MatrixSpec& spec, uint64_t seed) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> matrix, Reserve(runtime, spec));
  const gpu::DeviceForm& form = matrix->form_;
  const auto fill = [&](const GpuMemory& memory, gpu::FillRandomArgs::Kind kind) {
    gpu::LaunchList list;
    list.Add(gpu::Kernel::fill_random, {.grid_x = 1024, .threads = 256},
             gpu::FillRandomArgs{.words = reinterpret_cast<uint32_t*>(memory.data()),
                                 .count = memory.bytes() / 4,
                                 .seed = seed,
                                 .kind = kind});
    if (memory.bytes() > 0) runtime->Run(list);
  };
  fill(matrix->values_, IsQuantized(form.format)            ? gpu::FillRandomArgs::kBytes
                        : form.format == WeightFormat::kF32 ? gpu::FillRandomArgs::kF32
                        : form.format == WeightFormat::kF16 ? gpu::FillRandomArgs::kF16
                                                            : gpu::FillRandomArgs::kBF16);
  fill(matrix->scales_, form.half_scales ? gpu::FillRandomArgs::kHalfScales : gpu::FillRandomArgs::kScales);
  BW_RETURN_IF_ERROR(runtime->Synchronize());
  return matrix;
}

absl::Status GpuMatrix::CopyTables(const std::shared_ptr<gpu::Runtime>& runtime) {
  TableWriter writer;
  const int64_t segments = writer.Add(form_.segments), roots = writer.Add(form_.roots),
                steps = writer.Add(form_.steps), sets = writer.Add(form_.set_columns);
  const int64_t parts[2] = {writer.Add(form_.parts[0].parts), writer.Add(form_.parts[1].parts)};
  BW_ASSIGN_OR_RETURN(tables_, GpuMemory::Allocate(runtime, static_cast<int64_t>(writer.bytes().size())));
  runtime->CopyToDevice(tables_.data(), writer.bytes().data(), tables_.bytes());
  BW_RETURN_IF_ERROR(runtime->Synchronize());

  const auto at = [&]<typename T>(int64_t offset, const std::vector<T>&) {
    return reinterpret_cast<const T*>(tables_.data() + offset);
  };
  gpu::WeightTable& table = view_.table;
  table.segments = at(segments, form_.segments);
  table.roots = at(roots, form_.roots);
  steps_ = at(steps, form_.steps);
  set_columns_ = at(sets, form_.set_columns);
  for (int i = 0; i < 2; ++i) parts_[i] = at(parts[i], form_.parts[i].parts);
  table.segment_count = static_cast<int32_t>(form_.segments.size());
  table.root_count = static_cast<int32_t>(form_.roots.size());
  table.units = form_.units;
  table.sets = form_.sets;
  table.set_steps = form_.set_steps;
  for (int i = 0; i <= gpu::WeightTable::kInline; ++i) {
    table.unit_bounds[i] = i < table.segment_count ? form_.segments[i].unit_begin : form_.units;
  }
  if (table.root_count == 1) table.order = form_.roots[0].order;
  return absl::OkStatus();
}

absl::Status GpuMatrix::PackTo(char* image, const kernels::MatrixSpec& spec, WeightStore::FillRows fill,
                               int threads, int64_t piece_bytes) const {
  gpu::TilePlace place{.values = image, .scales = image + RoundUp(form_.value_bytes(), kImageAlignment)};
  if (form_.has_offset) place.offsets = place.scales + form_.scale_bytes();
  ThreadPool pool(threads);
  return ForEachPiece(spec, BlocksAtOnce(form_, piece_bytes), fill,
                      [&](const kernels::PackedMatrix& packed, Range tiles) {
                        place.tile = tiles.begin;
                        PackTiles(packed, form_, place, pool);
                        return absl::OkStatus();
                      });
}

absl::Status GpuMatrix::CopyPieces(gpu::Runtime& runtime, const kernels::MatrixSpec& spec,
                                   WeightStore::FillRows fill, int threads, const PinnedMemory& staging) {
  const int64_t blocks = BlocksAtOnce(form_, staging.bytes()), piece_bytes = blocks * BlockBytes(form_);
  // A block that is wider than the staging memory goes by way of memory of its own.
  std::vector<char> wide(piece_bytes > staging.bytes() ? piece_bytes : 0);
  char* const buffer = wide.empty() ? staging.data() : wide.data();
  gpu::TilePlace place{.values = buffer, .scales = buffer + blocks * form_.block_value_bytes()};
  if (form_.has_offset) place.offsets = place.scales + blocks * BlockScaleBytes(form_);
  ThreadPool pool(threads);
  return ForEachPiece(spec, blocks, fill, [&](const kernels::PackedMatrix& packed, Range tiles) {
    std::memset(buffer, 0, piece_bytes);
    PackTiles(packed, form_, place, pool);
    const int64_t values =
        RoundUp(tiles.size(), gpu::kBlockTiles) / gpu::kBlockTiles * form_.block_value_bytes();
    runtime.CopyToDevice(values_.data() + tiles.begin / gpu::kBlockTiles * form_.block_value_bytes(),
                         place.values, values);
    char* const scales = scales_.data() + tiles.begin * form_.tile_scale_bytes();
    runtime.CopyToDevice(scales, place.scales, tiles.size() * form_.tile_scale_bytes());
    if (form_.has_offset)
      runtime.CopyToDevice(scales + form_.scale_bytes(), place.offsets,
                           tiles.size() * form_.tile_scale_bytes());
    return runtime.Synchronize();
  });
}

absl::StatusOr<std::shared_ptr<const PinnedMemory>> GpuWeightStore::NewStaging(
    const std::shared_ptr<gpu::Runtime>& runtime) {
  BW_ASSIGN_OR_RETURN(PinnedMemory staging, PinnedMemory::Allocate(runtime, kGpuPieceBytes));
  return std::make_shared<const PinnedMemory>(std::move(staging));
}

absl::StatusOr<std::unique_ptr<DeviceMatrix>> GpuWeightStore::Pack(const kernels::MatrixSpec& spec,
                                                                   FillRows fill) {
  return GpuMatrix::Create(runtime_, spec, fill, threads_, *staging_);
}

absl::StatusOr<std::unique_ptr<DeviceMatrix>> GpuWeightStore::KeepImage(kernels::MatrixSpec) {
  return absl::InternalError("matrices that stay on a GPU have no image");
}

absl::StatusOr<DeviceVector> GpuWeightStore::Keep(std::vector<float> values) {
  if (values.empty()) return DeviceVector{};
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  BW_ASSIGN_OR_RETURN(GpuMemory memory, GpuMemory::Allocate(runtime_, bytes));
  runtime_->CopyToDevice(memory.data(), values.data(), bytes);
  BW_RETURN_IF_ERROR(runtime_->Synchronize());
  const DeviceVector vector{reinterpret_cast<const float*>(memory.data()),
                            static_cast<int64_t>(values.size())};
  vectors_.push_back(std::move(memory));
  return vector;
}

absl::StatusOr<int64_t> GpuImageStore::ImageBytes(absl::Span<const kernels::MatrixSpec> matrices) {
  int64_t bytes = 0;
  for (const kernels::MatrixSpec& spec : matrices) {
    BW_ASSIGN_OR_RETURN(const int64_t matrix, GpuMatrix::ImageBytes(spec));
    bytes += matrix;
  }
  return RoundUp(bytes, kImagePageBytes);
}

absl::StatusOr<std::unique_ptr<GpuMatrix>> GpuImageStore::Place(const kernels::MatrixSpec& spec) {
  BW_ASSIGN_OR_RETURN(const int64_t bytes, GpuMatrix::ImageBytes(spec));
  if (used_ + bytes > bytes_) return absl::InternalError("the store was made for fewer bytes of matrices");
  BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> matrix, GpuMatrix::CreateForImage(runtime_, spec));
  matrices_.push_back({matrix.get(), std::exchange(used_, used_ + bytes)});
  return matrix;
}

absl::StatusOr<std::unique_ptr<DeviceMatrix>> GpuImageStore::Pack(const kernels::MatrixSpec& spec,
                                                                  FillRows fill) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> placed, Place(spec));
  char* const at = reinterpret_cast<char*>(image_.get()) + matrices_.back().offset;
  BW_RETURN_IF_ERROR(placed->PackTo(at, spec, fill, threads_, kGpuPieceBytes));
  return placed;
}

absl::StatusOr<std::unique_ptr<DeviceMatrix>> GpuImageStore::KeepImage(kernels::MatrixSpec spec) {
  return Place(spec);
}

absl::Span<std::byte> GpuImageStore::image() {
  return {image_.get(), image_ == nullptr ? 0 : static_cast<size_t>(bytes_)};
}

void GpuImageStore::MoveTo(std::byte* image) {
  for (const auto& [matrix, offset] : matrices_)
    matrix->MoveTo(image == nullptr ? nullptr : reinterpret_cast<const char*>(image) + offset);
}

absl::Status GpuImageStore::Settle() {
  if (bytes_ == 0) return absl::OkStatus();
  BW_ASSIGN_OR_RETURN(settled_, GpuMemory::Allocate(runtime_, bytes_));
  runtime_->CopyToDevice(settled_.data(), image_.get(), bytes_);
  BW_RETURN_IF_ERROR(runtime_->Synchronize());
  MoveTo(reinterpret_cast<std::byte*>(settled_.data()));
  image_ = nullptr;
  return absl::OkStatus();
}

void GpuImageStore::DropImage() {
  MoveTo(nullptr);
  image_ = nullptr;
}

}  // namespace bellwether
