#include "worker/device/gpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exact_math.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "common/step.h"
#include "worker/device/gpu_device.h"

namespace bellwether {
namespace {

using gpu::Kernel;
using gpu::OperandOrder;
using gpu::SetEnds;
using gpu::TensorFormat;

constexpr int kThreads = 256;            // of a block of the simple kernels
constexpr int64_t kGridRowsMax = 32768;  // blocks in y; kernels walk on from there
constexpr int kAttendWarps = 4, kAttendBlockWarps = 8;
constexpr int64_t kStreamRows = 16;     // more are faster by tiles
constexpr int64_t kPartRowsMax = 1024;  // rows whose parts are kept at once
constexpr size_t kGraphsMax = 64;
constexpr size_t kGraphLaunchesMin = 8;
constexpr int kTensorHeadDimMax = 256;

const GpuMatrix& Of(const DeviceMatrix& matrix) { return static_cast<const GpuMatrix&>(matrix); }
const GpuMatrix& Of(const Product& product) { return Of(*product.weights); }

int64_t Blocks(int64_t count, int64_t each) { return (count + each - 1) / each; }

// The widest row of activations when packed: every 16 columns of a group cost at most a step, every slice a
// unit.
int64_t PackedColsMax(int64_t cols) { return RoundUp(2 * cols, 64) + 64 * kernels::kMatrixSlicesMax / 8; }

Kernel StreamKernel(const gpu::DeviceForm& form, int tiles_m, int tiles_n) {
  if (form.format == WeightFormat::kBF16)
    return tiles_n == 1 ? Kernel::stream_bf16_1x1 : Kernel::stream_bf16_1x2;
  const bool int8 = form.format == WeightFormat::kInt8;
  switch (form.set_ends_at) {
    case SetEnds::kUnits:
      if (tiles_n == 2) return int8 ? Kernel::stream_int8_units_1x2 : Kernel::stream_int4_units_1x2;
      if (tiles_m == 2) return int8 ? Kernel::stream_int8_units_2x1 : Kernel::stream_int4_units_2x1;
      return int8 ? Kernel::stream_int8_units_1x1 : Kernel::stream_int4_units_1x1;
    case SetEnds::kHalves:
      if (tiles_n == 2) return Kernel::stream_int4_halves_1x2;
      return tiles_m == 2 ? Kernel::stream_int4_halves_2x1 : Kernel::stream_int4_halves_1x1;
    case SetEnds::kAnywhere:
      break;
  }
  return int8 ? Kernel::stream_int8_any_1x1 : Kernel::stream_int4_any_1x1;
}

Kernel TileKernel(TensorFormat format, int rows, int depth) {
  if (format == TensorFormat::kInt8) return rows == 64 ? Kernel::tile_int8_64_1 : Kernel::tile_int8_128_1;
  if (format == TensorFormat::kInt4) return rows == 64 ? Kernel::tile_int4_64_1 : Kernel::tile_int4_128_1;
  if (depth == 1) return rows == 64 ? Kernel::tile_bf16_64_1 : Kernel::tile_bf16_128_1;
  return rows == 64 ? Kernel::tile_bf16_64_2 : Kernel::tile_bf16_128_2;
}

gpu::Storage StorageOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return gpu::Storage::kF32;
    case WeightFormat::kF16:
      return gpu::Storage::kF16;
    case WeightFormat::kBF16:
      return gpu::Storage::kBF16;
    case WeightFormat::kInt8:
      return gpu::Storage::kInt8;
    case WeightFormat::kInt4:
      break;
  }
  return gpu::Storage::kInt4;
}

gpu::StoreKvArgs::Type CacheType(DType type) {
  return type == DType::kBF16  ? gpu::StoreKvArgs::kBF16
         : type == DType::kF32 ? gpu::StoreKvArgs::kF32
                               : gpu::StoreKvArgs::kF16;
}

// After which root how many additions are due.
std::vector<uint8_t> RootAdditions(const std::vector<SliceRange>& roots) {
  std::vector<uint8_t> additions(roots.size(), 0);
  if (roots.empty()) return additions;
  int next = 0;
  const SliceRange all = {roots.front().begin, roots.back().end};
  SumInTreeOrder<int>(
      all, roots, next, [&](int i) { return i; },
      [&](int, int right) {
        ++additions[right];
        return right;
      });
  return additions;
}

}  // namespace

std::string GpuDevice::Describe() const {
  const gpu::DeviceInfo& info = runtime_->info();
  return absl::StrCat("cuda:", info.index, " (", info.name, ")");
}

absl::StatusOr<std::shared_ptr<WeightStore>> GpuDevice::NewWeightStore(int64_t) {
  return GpuWeightStore::Create(runtime_, threads_);
}

absl::StatusOr<std::unique_ptr<DeviceOps>> GpuDevice::NewOps(const OpsOptions& options) {
  if (options.kernel_level != runtime_->info().numeric_class) {
    return absl::FailedPreconditionError(absl::StrCat(
        Describe(), " computes as ", runtime_->info().numeric_class, ", not as ", options.kernel_level));
  }
  return GpuOps::Create(runtime_, options, kRowsMax);
}

// Memory
// --------------------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<DeviceOps>> GpuOps::Create(std::shared_ptr<gpu::Runtime> runtime,
                                                          const Device::OpsOptions& options,
                                                          int64_t layer_rows_max) {
  auto ops = std::unique_ptr<GpuOps>(new GpuOps(std::move(runtime), options, layer_rows_max));
  BW_RETURN_IF_ERROR(ops->Reserve());
  return ops;
}

GpuOps::GpuOps(std::shared_ptr<gpu::Runtime> runtime, const Device::OpsOptions& options,
               int64_t layer_rows_max)
    : runtime_(std::move(runtime)),
      options_(options),
      config_(*options.config),
      heads_(SliceHeads(config_, options.rank.slices)),
      kv_heads_(SliceKvHeads(config_, options.rank.slices)),
      queries_per_kv_(config_.heads / config_.kv_heads),
      rows_max_(std::min<int64_t>(layer_rows_max, options.step_tokens)),
      tensor_kv_(options.kv_type == DType::kBF16 && config_.head_dim <= kTensorHeadDimMax),
      root_additions_(RootAdditions(options.roots)) {}

GpuOps::~GpuOps() {
  (void)runtime_->Synchronize();
  graphs_.clear();
}

absl::Status GpuOps::Reserve() {
  const auto reserve = [this](int64_t bytes, const std::string& what, GpuMemory& to) {
    auto memory = GpuMemory::Allocate(runtime_, bytes);
    if (memory.ok()) to = *std::move(memory);
    return Annotate(memory.status(), what);
  };
  const int64_t head_dim = tensor_kv_ ? RoundUp(config_.head_dim, 16) : config_.head_dim;
  head_bytes_ = 2 * gpu::kKvBlockPositions * head_dim * SizeOf(options_.kv_type);
  BW_RETURN_IF_ERROR(
      reserve(options_.layers * options_.kv_blocks * kv_heads_.size() * head_bytes_, "KV cache", kv_));

  const int64_t ffn = SliceFfn(config_, options_.rank.slices).size();
  const int64_t cols = std::max<int64_t>({config_.hidden, ffn, heads_.size() * config_.head_dim});
  const int64_t rows = RoundUp(std::max<int64_t>(rows_max_, gpu::kPieceRows), gpu::kPieceRows);
  BW_RETURN_IF_ERROR(reserve(rows * PackedColsMax(cols) * 2, "scratch of products", operand_));
  BW_RETURN_IF_ERROR(reserve(rows * PackedColsMax(cols) / 16 * 4, "scratch of products", set_sums_));
  const int64_t part_rows = std::min(rows_max_, kPartRowsMax);
  BW_RETURN_IF_ERROR(
      reserve(part_rows * config_.hidden * options_.rank.slices.size() * 4, "sums of parts", parts_));
  BW_RETURN_IF_ERROR(Annotate(ReserveBatch(), "memory of a batch"));
  return Annotate(FillRopeTables(), "tables of positions");
}

absl::Status GpuOps::ReserveBatch() {
  const int64_t rows = options_.step_tokens;
  // A column is an item of its own at most; rows that two layer blocks share are items of both.
  memory_.items_max = 2 * rows * heads_.size() + kv_heads_.size();
  int64_t bytes = 0;
  const auto take = [&bytes](int64_t count, int64_t each) {
    const int64_t at = bytes;
    bytes += RoundUp(count * each, 256);
    return at;
  };
  memory_.tokens = take(rows, 4);
  memory_.positions = take(rows, 4);
  memory_.row_tables = take(rows, 4);
  memory_.picks = take(rows, 4);
  memory_.items = take(memory_.items_max, sizeof(gpu::AttentionItem));
  memory_.tables = take(rows * Blocks(options_.context_tokens, gpu::kKvBlockPositions), 4);
  BW_ASSIGN_OR_RETURN(batch_device_, GpuMemory::Allocate(runtime_, bytes));
  BW_ASSIGN_OR_RETURN(batch_host_, PinnedMemory::Allocate(runtime_, bytes));
  return absl::OkStatus();
}

// RoPE angles of every position, the angle rounded to fp32 before its cosine is taken as BatchBuilder does
// it; ALiBi slopes of this rank's heads.
absl::Status GpuOps::FillRopeTables() {
  std::vector<float> values;
  if (config_.alibi) {
    const std::vector<float> all = AlibiSlopes(config_.heads);
    values.assign(all.begin() + heads_.begin, all.begin() + heads_.end);
  } else {
    const std::vector<float> frequencies = RopeInverseFrequencies(config_);
    const int64_t count = int64_t{options_.context_tokens} * static_cast<int64_t>(frequencies.size());
    values.resize(2 * count);
    int64_t i = 0;
    for (int32_t position = 0; position < options_.context_tokens; ++position) {
      for (const float frequency : frequencies) {
        const float angle = static_cast<float>(position) * frequency;
        values[i] = static_cast<float>(Cos(angle));
        values[count + i++] = static_cast<float>(Sin(angle));
      }
    }
  }
  GpuMemory& memory = config_.alibi ? slopes_ : rope_;
  BW_ASSIGN_OR_RETURN(memory,
                      GpuMemory::Allocate(runtime_, static_cast<int64_t>(values.size() * sizeof(float))));
  runtime_->CopyToDevice(memory.data(), values.data(), memory.bytes());
  return runtime_->Synchronize();
}

absl::StatusOr<float*> GpuOps::Allocate(int64_t floats) {
  BW_ASSIGN_OR_RETURN(GpuMemory memory, GpuMemory::Allocate(runtime_, std::max<int64_t>(floats, 1) * 4));
  allocated_.push_back(std::move(memory));
  return reinterpret_cast<float*>(allocated_.back().data());
}

absl::StatusOr<float*> GpuOps::AllocateHost(int64_t floats) {
  BW_ASSIGN_OR_RETURN(PinnedMemory memory,
                      PinnedMemory::Allocate(runtime_, std::max<int64_t>(floats, 1) * 4));
  allocated_host_.push_back(std::move(memory));
  return reinterpret_cast<float*>(allocated_host_.back().data());
}

// A step
// --------------------------------------------------------------------------------------------------------------

void GpuOps::Fail(const std::string& what) { status_.Update(absl::InternalError(what)); }

void GpuOps::Begin(const Batch& batch) {
  status_.Update(Finish());  // the GPU still reads the batch before
  batch_ = &batch;
  attention_work_.clear();
  items_ = picks_ = 0;
  if (batch.rows() > options_.step_tokens) return Fail("a batch longer than a step");
  std::copy(batch.tokens.begin(), batch.tokens.end(), Host<int32_t>(memory_.tokens));
  std::copy(batch.positions.begin(), batch.positions.end(), Host<int32_t>(memory_.positions));
  const int64_t tables_max = (batch_host_.bytes() - memory_.tables) / 4;
  int64_t used = 0;
  for (const Batch::Run& run : batch.runs) {
    const int64_t blocks = (run.position + run.count - 1) / gpu::kKvBlockPositions + 1;
    if (used + blocks > tables_max || blocks > static_cast<int64_t>(run.sequence->blocks.size())) {
      return Fail("a sequence without KV blocks for its positions");
    }
    std::fill_n(Host<int32_t>(memory_.row_tables) + run.row, run.count, static_cast<int32_t>(used));
    std::copy_n(run.sequence->blocks.begin(), blocks, Host<int32_t>(memory_.tables) + used);
    used += blocks;
  }
  const int64_t rows = batch.rows();
  Send(memory_.tokens, rows * 4);
  Send(memory_.positions, rows * 4);
  Send(memory_.row_tables, rows * 4);
  Send(memory_.tables, used * 4);
}

template <typename Args>
void GpuOps::LaunchColumns(Kernel kernel, int64_t columns, int64_t rows, const Args& args) {
  if (rows == 0 || columns == 0) return;
  Launch(kernel, Blocks(columns, kThreads), std::min(rows, kGridRowsMax), 1, kThreads, 0, args);
}

void GpuOps::Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) {
  prepared_ = {};
  const GpuMatrix& matrix = Of(embedding);
  if (matrix.rows() == 0) return;
  Launch(Kernel::embed, Blocks(config_.hidden, kThreads), out.rows, 1, kThreads, 0,
         gpu::EmbedArgs{.weights = matrix.view(),
                        .storage = StorageOf(matrix.form().format),
                        .group = matrix.group(),
                        .tokens = OnDevice<int32_t>(memory_.tokens),
                        .first = first,
                        .out = out.data,
                        .stride = out.stride,
                        .cols = config_.hidden});
}

OperandOrder GpuOps::OrderFor(int64_t rows) const {
  return rows <= kStreamRows || !runtime_->info().hopper ? OperandOrder::kFragments : OperandOrder::kPieces;
}

// `rows` are about to be written, and will be the input of a product: they are left in its form too where
// that is simple.
gpu::OperandOut GpuOps::OperandFor(MutableRows rows, int64_t cols) {
  prepared_ = {};
  if (cols % 32 != 0) return {};
  prepared_ = {.data = rows.data, .rows = rows.rows, .cols = cols};
  return {
      .words = reinterpret_cast<uint32_t*>(operand_.data()), .k_count = cols, .order = OrderFor(rows.rows)};
}

void GpuOps::Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon, MutableRows out) {
  const gpu::OperandOut operand = OperandFor(out, cols);
  if (x.rows == 0) return;
  Launch(Kernel::norm, x.rows, 1, 1, gpu::kNormThreads, gpu::kNormSharedBytes,
         gpu::NormArgs{.x = x.data,
                       .stride = x.stride,
                       .weight = weights.weight.data,
                       .bias = weights.bias.data,
                       .out = out.data,
                       .out_stride = out.stride,
                       .operand = operand,
                       .cols = static_cast<int32_t>(cols),
                       .epsilon = static_cast<float>(epsilon)});
}

void GpuOps::RotateAndStore(int64_t layer, Range rows, MutableRows query, MutableRows key, ConstRows value) {
  prepared_ = {};
  const int64_t half = config_.head_dim / 2;
  const auto* rope = reinterpret_cast<const float*>(rope_.data());
  Launch(Kernel::store_kv, rows.size(), heads_.size() + kv_heads_.size(), 1, 128, 0,
         gpu::StoreKvArgs{.query = query.data,
                          .key = key.data,
                          .value = value.data,
                          .query_stride = query.stride,
                          .kv_stride = key.stride,
                          .cosines = config_.alibi ? nullptr : rope,
                          .sines = config_.alibi ? nullptr : rope + options_.context_tokens * half,
                          .positions = OnDevice<int32_t>(memory_.positions) + rows.begin,
                          .row_tables = OnDevice<int32_t>(memory_.row_tables) + rows.begin,
                          .tables = OnDevice<int32_t>(memory_.tables),
                          .cache = kv_.data() + layer * kv_heads_.size() * head_bytes_,
                          .block_stride = options_.layers * kv_heads_.size() * head_bytes_,
                          .head_bytes = head_bytes_,
                          .rows = static_cast<int32_t>(rows.size()),
                          .heads = static_cast<int32_t>(heads_.size()),
                          .kv_heads = static_cast<int32_t>(kv_heads_.size()),
                          .head_dim = config_.head_dim,
                          .type = tensor_kv_ ? gpu::StoreKvArgs::kBF16 : CacheType(options_.kv_type)});
}

// Attention
// --------------------------------------------------------------------------------------------------------------

// A run with many columns is worth a warp for each 16 of them; one of few has a block for each 8, whose warps
// share the positions.
bool GpuOps::ByWarp(const Batch::Run& run, Range rows) const {
  const int64_t first = std::max<int64_t>(rows.begin, run.row),
                last = std::min<int64_t>(rows.end, run.row + run.count);
  return tensor_kv_ && (last - first) * queries_per_kv_ >= 32;
}

void GpuOps::AddItems(Range rows, bool prompts, AttentionWork& work) {
  const int64_t columns_at_once = !tensor_kv_ ? 1 : prompts && config_.head_dim <= 128 ? 16 : 8;
  auto* items = Host<gpu::AttentionItem>(memory_.items);
  for (const Batch::Run& run : batch_->runs) {
    const int64_t first = std::max<int64_t>(rows.begin, run.row),
                  last = std::min<int64_t>(rows.end, run.row + run.count);
    if (first >= last || ByWarp(run, rows) != prompts) continue;
    for (int64_t kv_head = 0; kv_head < kv_heads_.size(); ++kv_head) {
      const int64_t group = kv_heads_.begin + kv_head;
      const int64_t head_begin = std::max(heads_.begin, group * queries_per_kv_);
      const int64_t head_end = std::min(heads_.end, (group + 1) * queries_per_kv_);
      const int64_t columns = (last - first) * (head_end - head_begin);
      for (int64_t begin = 0; begin < columns; begin += columns_at_once) {
        if (items_ == memory_.items_max) return Fail("more pieces of attention than there is room for");
        items[items_++] = {.table = Host<int32_t>(memory_.row_tables)[run.row],
                           .row = static_cast<int32_t>(first - rows.begin),
                           .position = run.position + static_cast<int32_t>(first - run.row),
                           .column_begin = static_cast<int32_t>(begin),
                           .column_end = static_cast<int32_t>(std::min(begin + columns_at_once, columns)),
                           .head = static_cast<int32_t>(head_begin - heads_.begin),
                           .heads = static_cast<int32_t>(head_end - head_begin),
                           .kv_head = static_cast<int32_t>(kv_head)};
        ++(prompts ? work.by_warp : work.by_block);
      }
    }
  }
}

const GpuOps::AttentionWork& GpuOps::WorkFor(Range rows) {
  for (const AttentionWork& work : attention_work_) {
    if (work.rows == rows) return work;
  }
  AttentionWork work{.rows = rows, .first = items_};
  AddItems(rows, /*prompts=*/true, work);
  AddItems(rows, /*prompts=*/false, work);
  Send(memory_.items + work.first * static_cast<int64_t>(sizeof(gpu::AttentionItem)),
       (items_ - work.first) * static_cast<int64_t>(sizeof(gpu::AttentionItem)));
  attention_work_.push_back(work);
  return attention_work_.back();
}

gpu::AttentionArgs GpuOps::AttentionOf(int64_t layer, const AttentionWork& work, ConstRows query,
                                       MutableRows out) const {
  return {.items = OnDevice<gpu::AttentionItem>(memory_.items) + work.first,
          .tables = OnDevice<int32_t>(memory_.tables),
          .cache = kv_.data() + layer * kv_heads_.size() * head_bytes_,
          .block_stride = options_.layers * kv_heads_.size() * head_bytes_,
          .head_bytes = head_bytes_,
          .query = query.data,
          .out = out.data,
          .slopes = config_.alibi ? reinterpret_cast<const float*>(slopes_.data()) : nullptr,
          .stride = query.stride,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
          .head_dim = config_.head_dim,
          .item_count = static_cast<int32_t>(work.by_warp)};
}

void GpuOps::Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) {
  prepared_ = {};
  const AttentionWork work = WorkFor(rows);
  gpu::AttentionArgs args = AttentionOf(layer, work, query, out);
  if (!tensor_kv_) {
    Launch(Kernel::attend_scalar, work.by_block, 1, 1, 32, 0,
           gpu::ScalarAttentionArgs{.common = args, .type = CacheType(options_.kv_type)});
    return;
  }
  const int steps = config_.head_dim <= 64 ? 4 : config_.head_dim <= 128 ? 8 : 16;
  if (work.by_warp > 0) {
    const Kernel kernel = steps == 4   ? Kernel::attend_warp_4
                          : steps == 8 ? Kernel::attend_warp_8
                                       : Kernel::attend_warp_16;
    Launch(kernel, Blocks(work.by_warp, kAttendWarps), 1, 1, kAttendWarps * 32, 0, args);
  }
  if (work.by_block > 0) {
    args.items += work.by_warp;
    args.item_count = static_cast<int32_t>(work.by_block);
    const Kernel kernel = steps == 4   ? Kernel::attend_block_4
                          : steps == 8 ? Kernel::attend_block_8
                                       : Kernel::attend_block_16;
    Launch(kernel, work.by_block, 1, 1, kAttendBlockWarps * 32,
           gpu::AttendByBlockSharedBytes(steps, kAttendBlockWarps), args);
  }
}

// Products
// --------------------------------------------------------------------------------------------------------------

void GpuOps::Multiply(ConstRows x, absl::Span<const Product> products) {
  if (x.rows == 0) return;
  for (size_t first = 0; first < products.size();) {
    const gpu::DeviceForm& form = Of(products[first]).form();
    size_t last = first + 1;
    while (last < products.size() && last - first < gpu::kProductsMax &&
           Of(products[last]).form().format == form.format &&
           Of(products[last]).form().has_offset == form.has_offset &&
           SamePreparation(form, Of(products[last]).form())) {
      ++last;
    }
    if (form.scalar()) {
      for (size_t i = first; i < last; ++i) MultiplyScalar(x, products[i]);
    } else {
      MultiplyAlike(x, products.subspan(first, last - first));
    }
    first = last;
  }
}

void GpuOps::MultiplyScalar(ConstRows x, const Product& product) {
  const GpuMatrix& matrix = Of(product);
  if (matrix.rows() == 0) return;
  Launch(Kernel::scalar_matmul, matrix.form().tiles, std::min(x.rows, kGridRowsMax), 1, kThreads,
         gpu::ScalarMatmulSharedBytes(static_cast<int>(matrix.form().segments.size())),
         gpu::ScalarMatmulArgs{.weights = matrix.view(),
                               .x = x.data,
                               .stride = x.stride,
                               .y = product.y,
                               .bias = product.bias.data,
                               .y_stride = product.stride,
                               .root_stride = product.root_stride,
                               .rows = static_cast<int32_t>(x.rows),
                               .half = matrix.form().format == WeightFormat::kF16});
}

void GpuOps::MultiplyAlike(ConstRows x, absl::Span<const Product> products) {
  const GpuMatrix& first = Of(products[0]);
  const OperandOrder order = OrderFor(x.rows);
  Prepare(x, first, order);
  order == OperandOrder::kFragments ? Stream(x.rows, first, products) : Tile(x.rows, first, products);
}

void GpuOps::Prepare(ConstRows x, const GpuMatrix& matrix, OperandOrder order) {
  const gpu::DeviceForm& form = matrix.form();
  const int64_t packed = form.packed_cols();
  if (RoundUp(x.rows, gpu::kPieceRows) * packed * 2 > operand_.bytes() ||
      RoundUp(x.rows, 8) * form.sets * 4 > set_sums_.bytes()) {
    return Fail("a product of wider rows than was reckoned with");
  }
  const bool there = prepared_.data == x.data && prepared_.rows == x.rows && prepared_.cols == packed &&
                     form.packed_columns_are_columns;
  if (!there) {
    prepared_ = {};
    LaunchColumns(Kernel::prepare, packed / 2, x.rows,
                  gpu::PrepareArgs{.x = x.data,
                                   .stride = x.stride,
                                   .rows = static_cast<int32_t>(x.rows),
                                   .cols = static_cast<int32_t>(form.cols),
                                   .steps = form.packed_columns_are_columns ? nullptr : matrix.steps(),
                                   .out = {reinterpret_cast<uint32_t*>(operand_.data()), packed, order}});
  }
  if (form.has_offset) {
    LaunchColumns(Kernel::set_sums, form.sets, x.rows,
                  gpu::SetSumsArgs{.x = x.data,
                                   .stride = x.stride,
                                   .rows = static_cast<int32_t>(x.rows),
                                   .sets = form.sets,
                                   .columns = matrix.set_columns(),
                                   .sums = reinterpret_cast<float*>(set_sums_.data())});
  }
}

void GpuOps::Stream(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products) {
  const gpu::DeviceForm& form = first.form();
  const int segments = static_cast<int>(form.segments.size());
  int64_t tiles = 0;
  for (const Product& product : products) tiles += Of(product).form().tiles;
  if (tiles == 0) return;
  const bool wide = form.set_ends_at != SetEnds::kAnywhere || form.format == WeightFormat::kBF16;
  const int tiles_n = rows > 8 && wide ? 2 : 1;
  // Two tiles share what a warp does for x, where there are enough of them to keep every multiprocessor at
  // work.
  const int64_t multiprocessors = runtime_->info().multiprocessors;
  const int tiles_m =
      IsQuantized(form.format) && wide && tiles_n == 1 && tiles >= 6 * multiprocessors ? 2 : 1;
  const int64_t blocks = Blocks(tiles, tiles_m);
  const int warps = std::min(segments, blocks * 8 >= multiprocessors * 24 ? 8 : 16);
  for (int64_t row = 0; row < rows; row += 8 * tiles_n) {
    gpu::StreamMatmulArgs args{
        .output_count = static_cast<int32_t>(products.size()),
        .rows = static_cast<int32_t>(std::min<int64_t>(rows - row, 8 * tiles_n)),
        .x = reinterpret_cast<const gpu::Words4*>(operand_.data()) + row / 8 * form.packed_cols(),
        .set_sums = reinterpret_cast<const float*>(set_sums_.data()) + row * form.sets};
    int64_t grid = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const Product& product = products[i];
      args.outputs[i] = {.weights = Of(product).view(),
                         .y = product.y + row * product.stride,
                         .bias = product.bias.data,
                         .root_stride = product.root_stride,
                         .stride = product.stride};
      grid += Blocks(Of(product).form().tiles, tiles_m);
    }
    Launch(StreamKernel(form, tiles_m, tiles_n), grid, 1, 1, warps * 32,
           gpu::StreamMatmulSharedBytes(segments, tiles_m, tiles_n), args);
  }
}

void GpuOps::Tile(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products) {
  const gpu::DeviceForm& form = first.form();
  const size_t roots = form.roots.size();
  // A deeper stack needs fewer parts, and more registers.
  const int depth =
      form.format == WeightFormat::kBF16 && form.parts[1].parts.size() < form.parts[0].parts.size() ? 2 : 1;
  const size_t parts = form.parts[depth - 1].parts.size();
  if (parts != roots) {
    for (const Product& product : products) {
      for (int64_t row = 0; row < rows; row += kPartRowsMax) {
        TileParts(row, std::min(rows - row, kPartRowsMax), Of(product), product, depth);
      }
    }
    return;
  }
  const int tile_rows = rows <= 64 ? 64 : 128;
  gpu::TileMatmulArgs args{.output_count = static_cast<int32_t>(products.size()),
                           .rows = static_cast<int32_t>(rows),
                           .parts = first.parts(depth),
                           .x = operand_.data(),
                           .set_sums = reinterpret_cast<const float*>(set_sums_.data())};
  int64_t grid = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    args.outputs[i] = {.weights = Of(products[i]).view(),
                       .y = products[i].y,
                       .bias = products[i].bias.data,
                       .part_stride = products[i].root_stride,
                       .stride = products[i].stride};
    grid += Blocks(Of(products[i]).form().tiles, gpu::kBlockTiles);
  }
  if (grid == 0) return;
  Launch(TileKernel(form.tensor_format(), tile_rows, depth), Blocks(rows, tile_rows), grid,
         static_cast<int64_t>(parts), gpu::kTileMatmulThreads,
         gpu::TileMatmulSharedBytes(form.tensor_format(), tile_rows), args);
}

void GpuOps::TileParts(int64_t row, int64_t rows, const GpuMatrix& matrix, const Product& product,
                       int depth) {
  const gpu::DeviceForm& form = matrix.form();
  const gpu::DeviceForm::PartSums& sums = form.parts[depth - 1];
  const auto parts = static_cast<int64_t>(sums.parts.size());
  if (form.tiles == 0) return;
  if (parts * rows * form.rows * 4 > parts_.bytes())
    return Fail("a product of more parts than was reckoned with");
  const int tile_rows = rows <= 64 ? 64 : 128;
  auto* partial = reinterpret_cast<float*>(parts_.data());
  gpu::TileMatmulArgs args{.output_count = 1,
                           .rows = static_cast<int32_t>(rows),
                           .parts = matrix.parts(depth),
                           .x = operand_.data() + row * form.packed_cols() * 2,
                           .set_sums = reinterpret_cast<const float*>(set_sums_.data()) + row * form.sets};
  args.outputs[0] = {
      .weights = matrix.view(), .y = partial, .part_stride = rows * form.rows, .stride = form.rows};
  Launch(TileKernel(form.tensor_format(), tile_rows, depth), Blocks(rows, tile_rows),
         Blocks(form.tiles, gpu::kBlockTiles), parts, gpu::kTileMatmulThreads,
         gpu::TileMatmulSharedBytes(form.tensor_format(), tile_rows), args);
  gpu::SumTreeArgs tree{.leaves = partial,
                        .leaf_stride = rows * form.rows,
                        .stride = form.rows,
                        .out = product.y + row * product.stride,
                        .root_stride = product.root_stride,
                        .out_stride = product.stride,
                        .bias = product.bias.data,
                        .rows = static_cast<int32_t>(rows),
                        .cols = static_cast<int32_t>(form.rows),
                        .leaf_count = static_cast<int32_t>(parts)};
  std::copy(sums.additions.begin(), sums.additions.end(), tree.additions);
  std::copy(sums.ends.begin(), sums.ends.end(), tree.ends);
  LaunchColumns(Kernel::sum_tree, form.rows, rows, tree);
}

// Row by row
// --------------------------------------------------------------------------------------------------------------

void GpuOps::SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) {
  const gpu::OperandOut operand = OperandFor(gate, cols);
  LaunchColumns(Kernel::activate, Blocks(cols, 2), gate.rows,
                gpu::ActivateArgs{.gate = gate.data,
                                  .up = up.data,
                                  .gate_stride = gate.stride,
                                  .up_stride = up.stride,
                                  .rows = static_cast<int32_t>(gate.rows),
                                  .cols = static_cast<int32_t>(cols),
                                  .operand = operand});
}

void GpuOps::Gelu(MutableRows x, int64_t cols) {
  const gpu::OperandOut operand = OperandFor(x, cols);
  LaunchColumns(Kernel::activate, Blocks(cols, 2), x.rows,
                gpu::ActivateArgs{.gate = x.data,
                                  .gate_stride = x.stride,
                                  .rows = static_cast<int32_t>(x.rows),
                                  .cols = static_cast<int32_t>(cols),
                                  .operand = operand});
}

void GpuOps::Add(ConstRows before, MutableRows sum, DeviceVector bias, MutableRows residual) {
  prepared_ = {};
  LaunchColumns(Kernel::add, config_.hidden, residual.rows,
                gpu::AddArgs{.before = before.data,
                             .sum = sum.data,
                             .bias = bias.data,
                             .out = residual.data,
                             .before_stride = before.stride,
                             .sum_stride = sum.stride,
                             .out_stride = residual.stride,
                             .rows = static_cast<int32_t>(residual.rows),
                             .cols = config_.hidden});
}

void GpuOps::PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) {
  prepared_ = {};
  const auto count = static_cast<int64_t>(picks.size());
  if (count == 0) return;
  if (picks_ + count > options_.step_tokens) return Fail("more rows picked than a step has");
  std::copy(picks.begin(), picks.end(), Host<int32_t>(memory_.picks) + picks_);
  const int64_t at = memory_.picks + picks_ * 4;
  Send(at, count * 4);
  picks_ += count;
  Launch(Kernel::pick_rows, Blocks(cols, kThreads), count, 1, kThreads, 0,
         gpu::PickRowsArgs{.x = x.data,
                           .out = out.data,
                           .stride = x.stride,
                           .out_stride = out.stride,
                           .cols = static_cast<int32_t>(cols),
                           .count = static_cast<int32_t>(count),
                           .picks = OnDevice<int32_t>(at)});
}

void GpuOps::SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) {
  prepared_ = {};
  const auto leaves = static_cast<int64_t>(roots.size());
  if (leaves == 0 || leaves > gpu::kLeavesMax || leaves != static_cast<int64_t>(root_additions_.size())) {
    return Fail("a sum of other roots than this stage has");
  }
  const int64_t stride = leaves > 1 ? roots[1] - roots[0] : 0;
  for (int64_t i = 0; i < leaves; ++i) {
    if (roots[i] != roots[0] + i * stride) return Fail("roots that do not follow each other");
  }
  gpu::SumTreeArgs args{.leaves = roots[0],
                        .leaf_stride = stride,
                        .out = out,
                        .rows = 1,
                        .cols = static_cast<int32_t>(count),
                        .leaf_count = static_cast<int32_t>(leaves)};
  std::copy(root_additions_.begin(), root_additions_.end(), args.additions);
  args.ends[leaves - 1] = 1;
  LaunchColumns(Kernel::sum_tree, count, 1, args);
}

// Between device and host
// --------------------------------------------------------------------------------------------------------------

void GpuOps::Submit() {
  for (const auto& [at, bytes] : to_send_)
    runtime_->CopyToDevice(batch_device_.data() + at, batch_host_.data() + at, bytes);
  to_send_.clear();
  if (list_.empty()) return;
  const uint64_t hash = list_.Hash();
  const auto found = graphs_by_hash_.find(hash);
  if (list_.launches().size() < kGraphLaunchesMin) {
    runtime_->Run(list_);
  } else if (found == graphs_by_hash_.end()) {
    runtime_->Run(list_);
    graphs_.push_front({list_, nullptr});
    graphs_by_hash_[hash] = graphs_.begin();
    if (graphs_.size() > kGraphsMax) {
      status_.Update(runtime_->Synchronize());  // a graph that runs must not go
      graphs_by_hash_.erase(graphs_.back().list.Hash());
      graphs_.pop_back();
    }
  } else {
    CachedGraph& cached = *found->second;
    graphs_.splice(graphs_.begin(), graphs_, found->second);
    if (cached.graph == nullptr && cached.list == list_) {
      absl::StatusOr<std::unique_ptr<gpu::Graph>> graph = runtime_->MakeGraph(list_);
      status_.Update(graph.status());
      if (graph.ok()) cached.graph = *std::move(graph);
    }
    if (cached.graph != nullptr && cached.list == list_) {
      runtime_->Run(*cached.graph);
    } else {
      runtime_->Run(list_);
    }
  }
  list_.Clear();
}

absl::Status GpuOps::Finish() {
  Submit();
  status_.Update(runtime_->Synchronize());
  return status_;
}

absl::Status GpuOps::Read(const float* from, absl::Span<float> to) {
  Submit();
  runtime_->CopyToHost(to.data(), from, static_cast<int64_t>(to.size() * sizeof(float)));
  return Finish();
}

absl::Status GpuOps::Write(absl::Span<const float> from, float* to) {
  prepared_ = {};
  Submit();
  runtime_->CopyToDevice(to, from.data(), static_cast<int64_t>(from.size() * sizeof(float)));
  return Finish();
}

}  // namespace bellwether
