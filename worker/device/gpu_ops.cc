#include "worker/device/gpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exact_math.h"
#include "common/log.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "common/step.h"
#include "model/row_limits.h"

namespace bellwether {
namespace {

static_assert(gpu::kKvBlockPositions == kKvBlockTokens && gpu::kAttentionTile == 2 * kKvBlockTokens);

using gpu::Kernel;
using gpu::OperandOrder;

constexpr size_t kGraphsMax = 64;
constexpr size_t kGraphLaunchesMin = 8;
constexpr int kTensorHeadDimMax = 256;

// The widest row of activations when packed: a segment may begin and end within a set of 128 columns, and
// there is one for each of 16 slices and for every 1024 columns.
int64_t PackedColsMax(int64_t cols) { return RoundUp(2 * cols, 64) + 2 * 128 * 16; }

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

// -- Memory

absl::StatusOr<std::unique_ptr<DeviceOps>> GpuOps::Create(std::shared_ptr<gpu::Runtime> runtime,
                                                          const Device::OpsOptions& options,
                                                          int64_t layer_rows_max, int threads) {
  auto ops = std::unique_ptr<GpuOps>(new GpuOps(std::move(runtime), options, layer_rows_max, threads));
  BW_RETURN_IF_ERROR(ops->Reserve());
  return ops;
}

GpuOps::GpuOps(std::shared_ptr<gpu::Runtime> runtime, const Device::OpsOptions& options,
               int64_t layer_rows_max, int threads)
    : runtime_(std::move(runtime)),
      pool_({.threads = threads, .spin_pauses = 0}),
      options_(options),
      config_(*options.config),
      heads_(SliceHeads(config_, options.rank.slices)),
      kv_heads_(SliceKvHeads(config_, options.rank.slices)),
      queries_per_kv_(config_.heads / config_.kv_heads),
      rows_max_(std::min<int64_t>(layer_rows_max, options.step_tokens)),
      limbs_(options.gpu_limbs),
      tensor_kv_(options.kv_type == DType::kBF16 && config_.head_dim <= kTensorHeadDimMax),
      cache_type_(CacheType(options.kv_type)),
      root_additions_(RootAdditions(options.roots)) {}

GpuOps::~GpuOps() {
  (void)runtime_->Synchronize();
  lane_.reset();
  graphs_.clear();
}

absl::Status GpuOps::Reserve() {
  const auto reserve = [this](int64_t bytes, const std::string& what, GpuMemory& to) {
    auto memory = GpuMemory::Allocate(runtime_, bytes);
    if (!memory.ok()) return Annotate(memory.status(), what);
    to = *std::move(memory);
    return absl::OkStatus();
  };
  // Kernels take columns and head values in pairs.
  if (config_.hidden % 2 != 0 || config_.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("GPUs take no model of odd sizes: hidden ", config_.hidden,
                                                   ", head_dim ", config_.head_dim));
  }
  const bool fragments = options_.kv_type == DType::kBF16;
  const int64_t head_dim = fragments ? RoundUp(config_.head_dim, 16) : config_.head_dim;
  head_bytes_ = 2 * gpu::kKvBlockPositions * head_dim * SizeOf(options_.kv_type);
  BW_RETURN_IF_ERROR(
      reserve(options_.layers * options_.kv_blocks * kv_heads_.size() * head_bytes_, "KV cache", kv_));

  const int64_t ffn = SliceFfn(config_, options_.rank.slices).size();
  const int64_t cols = std::max<int64_t>({config_.hidden, ffn, heads_.size() * config_.head_dim});
  const int64_t rows = RoundUp(std::max<int64_t>(rows_max_, gpu::kPieceRows), gpu::kPieceRows);
  BW_RETURN_IF_ERROR(reserve(limbs_ * rows * PackedColsMax(cols) * 2, "scratch of products", operand_));
  BW_RETURN_IF_ERROR(reserve(rows * PackedColsMax(cols) / 16 * 4, "scratch of products", set_sums_));
  const int64_t part_rows = std::min(rows_max_, kPartRowsMax);
  BW_RETURN_IF_ERROR(
      reserve(part_rows * config_.hidden * options_.rank.slices.size() * 4, "sums of parts", parts_));
  const int64_t largest = int64_t{kLogitRowsMax} * Blocks(config_.vocab, kernels::kLargestChunk) *
                          kernels::kLargestMax * static_cast<int64_t>(sizeof(kernels::LargestValue));
  BW_RETURN_IF_ERROR(reserve(largest, "the largest logits", largest_));
  BW_ASSIGN_OR_RETURN(largest_host_, PinnedMemory::Allocate(runtime_, largest));
  BW_RETURN_IF_ERROR(Annotate(ReserveBatch(), "memory of a batch"));
  return Annotate(FillRopeTables(), "tables of positions");
}

absl::Status GpuOps::ReserveBatch() {
  const int64_t rows = options_.step_tokens;
  // A column is an item of its own at most; rows that two layer blocks share are items of both.
  const int64_t items = 2 * rows * heads_.size() + kv_heads_.size();
  const int64_t added = items * static_cast<int64_t>(sizeof(gpu::AttentionItem)) + kPicksPerRow * rows * 4;
  memory_.tokens = RoundUp(added, 256) + 256;  // items are aligned
  PlaceRows(rows);
  const int64_t bytes = memory_.tables + rows * Blocks(options_.context_tokens, gpu::kKvBlockPositions) * 4;
  BW_ASSIGN_OR_RETURN(batch_device_, GpuMemory::Allocate(runtime_, bytes));
  BW_ASSIGN_OR_RETURN(batch_host_, PinnedMemory::Allocate(runtime_, bytes));
  return absl::OkStatus();
}

void GpuOps::PlaceRows(int64_t rows) {
  const int64_t bytes = RoundUp(rows * 4, 256);
  memory_.positions = memory_.tokens + bytes;
  memory_.row_blocks = memory_.positions + bytes;
  memory_.tables = memory_.row_blocks + bytes;
}

// RoPE angles of every position, the angle rounded to fp32 before its cosine is taken as CpuOps does
// it; ALiBi slopes of this rank's heads.
absl::Status GpuOps::FillRopeTables() {
  constexpr int64_t kFloatBytes = sizeof(float);
  if (config_.alibi) {
    const std::vector<float> slopes = AlibiSlopes(config_.heads);
    BW_ASSIGN_OR_RETURN(slopes_, GpuMemory::Allocate(runtime_, heads_.size() * kFloatBytes));
    runtime_->CopyToDevice(slopes_.data(), slopes.data() + heads_.begin, slopes_.bytes());
    return runtime_->Synchronize();
  }
  const std::vector<float> frequencies = RopeInverseFrequencies(config_);
  const auto pairs = static_cast<int64_t>(frequencies.size());
  const int64_t table_bytes = options_.context_tokens * pairs * kFloatBytes;
  BW_ASSIGN_OR_RETURN(rope_, GpuMemory::Allocate(runtime_, 2 * table_bytes));
  // Some at a time: a long context has gigabytes of them, which the host need not have.
  constexpr int32_t kAtOnce = 4096;
  for (int32_t first = 0; first < options_.context_tokens; first += kAtOnce) {
    std::vector<float> cosines, sines;
    for (int32_t position = first; position < std::min(first + kAtOnce, options_.context_tokens);
         ++position) {
      for (const float frequency : frequencies) {
        const float angle = static_cast<float>(position) * frequency;
        cosines.push_back(static_cast<float>(Cos(angle)));
        sines.push_back(static_cast<float>(Sin(angle)));
      }
    }
    const auto bytes = static_cast<int64_t>(cosines.size()) * kFloatBytes;
    char* const to = rope_.data() + first * pairs * kFloatBytes;
    runtime_->CopyToDevice(to, cosines.data(), bytes);
    runtime_->CopyToDevice(to + table_bytes, sines.data(), bytes);
    BW_RETURN_IF_ERROR(runtime_->Synchronize());
  }
  return absl::OkStatus();
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

// -- A step

void GpuOps::Fail(const std::string& what) { status_.Update(absl::InternalError(what)); }

void GpuOps::Begin(const Batch& batch) {
  status_.Update(Finish());  // the GPU still reads the batch before
  batch_ = &batch;
  attention_work_.clear();
  run_tables_.clear();
  added_ = memory_.tokens;
  const int64_t rows = batch.rows();
  if (rows > options_.step_tokens) return Fail("a batch longer than a step");
  PlaceRows(rows);
  std::copy(batch.tokens.begin(), batch.tokens.end(), Host<int32_t>(memory_.tokens));
  std::copy(batch.positions.begin(), batch.positions.end(), Host<int32_t>(memory_.positions));
  const int64_t tables_max = (batch_host_.bytes() - memory_.tables) / 4;
  int64_t used = 0;
  for (const Batch::Run& run : batch.runs) {
    const int64_t blocks = (run.position + run.count - 1) / gpu::kKvBlockPositions + 1;
    if (used + blocks > tables_max || blocks > static_cast<int64_t>(run.sequence->blocks.size())) {
      return Fail("a sequence without KV blocks for its positions");
    }
    for (int32_t i = 0; i < run.count; ++i) {
      Host<int32_t>(memory_.row_blocks)[run.row + i] =
          run.sequence->blocks[(run.position + i) / gpu::kKvBlockPositions];
    }
    run_tables_.push_back(static_cast<int32_t>(used));
    std::copy_n(run.sequence->blocks.begin(), blocks, Host<int32_t>(memory_.tables) + used);
    used += blocks;
  }
  Send(memory_.tokens, rows * 4);
  Send(memory_.positions, rows * 4);
  Send(memory_.row_blocks, rows * 4);
  Send(memory_.tables, used * 4);
}

void GpuOps::Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) {
  prepared_ = {};
  const GpuMatrix& matrix = Of(embedding);
  if (matrix.rows() == 0) return;
  Launch(Kernel::embed, {Blocks(config_.hidden, kThreads), out.rows}, kThreads, 0,
         gpu::EmbedArgs{.weights = matrix.view(),
                        .format = matrix.form().format,
                        .group = matrix.group(),
                        .tokens = OnDevice<int32_t>(memory_.tokens),
                        .first = first,
                        .cols = config_.hidden,
                        .out = out.data,
                        .stride = out.stride});
}

// A stream reads the weights again for every 16 rows, tiles for every 64 or more. Without wgmma that tiles
// are faster from the 17th row on is reckoned, not measured: a tile computes for all its rows, which for 17
// of int4 on cards of slow tensor cores takes about as long as to read the weights twice.
bool GpuOps::ByTiles(int64_t rows, WeightFormat format) const {
  const gpu::DeviceInfo& card = runtime_->info();
  return rows > kStreamRows && (card.hopper || gpu::MmaTileSharedBytes(format) <= card.shared_bytes);
}

OperandOrder GpuOps::OrderFor(int64_t rows) const {
  return rows > kStreamRows && runtime_->info().hopper ? OperandOrder::kPieces : OperandOrder::kFragments;
}

// `rows` are about to be written, and will be the input of a product: they are left in its form too where
// that is simple.
gpu::OperandOut GpuOps::OperandFor(MutableRows rows, int64_t cols) {
  prepared_ = {};
  if (cols % 32 != 0) return {};
  prepared_ = {.data = rows.data, .rows = rows.rows, .cols = cols};
  return OperandOf(rows.rows, cols, limbs_);
}
gpu::OperandOut GpuOps::OperandOf(int64_t rows, int64_t cols, int limbs) const {
  return {.words = reinterpret_cast<uint32_t*>(operand_.data()),
          .k_count = cols,
          .order = OrderFor(rows),
          .limbs = limbs,
          .limb_stride = limb_bytes() / 4};
}

void GpuOps::Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon, MutableRows out) {
  const gpu::OperandOut operand = OperandFor(out, cols);
  if (x.rows == 0) return;
  gpu::NormArgs args{.x = x.data,
                     .stride = x.stride,
                     .weight = weights.weight.data,
                     .bias = weights.bias.data,
                     .out = out.data,
                     .out_stride = out.stride,
                     .operand = operand,
                     .cols = static_cast<int32_t>(cols),
                     .epsilon = static_cast<float>(epsilon)};
  // Sums that were added just before are added on the way instead.
  if (last_add_.out == x.data && last_add_.launches == list_.launches().size() &&
      last_add_.args.rows == x.rows && last_add_.args.cols == cols) {
    const gpu::AddArgs& add = last_add_.args;
    list_.RemoveLast();
    args.x = add.before;
    args.stride = add.before_stride;
    args.sum = add.sum;
    args.add_bias = add.bias;
    args.sum_stride = add.sum_stride;
    args.total = add.out;
    args.total_stride = add.out_stride;
  }
  last_add_ = {};
  Launch(Kernel::norm, {x.rows}, gpu::kNormThreads, gpu::kNormSharedBytes, args);
}

void GpuOps::RotateAndStore(int64_t layer, Range rows, const HeadNorms& norms, MutableRows query,
                            MutableRows key, ConstRows value) {
  prepared_ = {};
  const int64_t half = config_.head_dim / 2;
  const auto* rope = reinterpret_cast<const float*>(rope_.data());
  Launch(Kernel::store_kv, {rows.size(), Blocks(heads_.size() + kv_heads_.size(), 4)}, 128, 0,
         gpu::StoreKvArgs{.query = query.data,
                          .key = key.data,
                          .value = value.data,
                          .query_stride = query.stride,
                          .kv_stride = key.stride,
                          .query_norm = norms.query.data,
                          .key_norm = norms.key.data,
                          .cosines = config_.alibi ? nullptr : rope,
                          .sines = config_.alibi ? nullptr : rope + options_.context_tokens * half,
                          .positions = OnDevice<int32_t>(memory_.positions) + rows.begin,
                          .blocks = OnDevice<int32_t>(memory_.row_blocks) + rows.begin,
                          .cache = kv_.data() + layer * kv_heads_.size() * head_bytes_,
                          .block_stride = options_.layers * kv_heads_.size() * head_bytes_,
                          .head_bytes = head_bytes_,
                          .rows = static_cast<int32_t>(rows.size()),
                          .heads = static_cast<int32_t>(heads_.size()),
                          .kv_heads = static_cast<int32_t>(kv_heads_.size()),
                          .head_dim = config_.head_dim,
                          .type = cache_type_,
                          .epsilon = static_cast<float>(config_.norm_epsilon)});
}

// -- Row by row

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
  const gpu::AddArgs args{.before = before.data,
                          .sum = sum.data,
                          .bias = bias.data,
                          .out = residual.data,
                          .before_stride = before.stride,
                          .sum_stride = sum.stride,
                          .out_stride = residual.stride,
                          .rows = static_cast<int32_t>(residual.rows),
                          .cols = config_.hidden};
  LaunchColumns(Kernel::add, config_.hidden, residual.rows, args);
  last_add_ = {.out = residual.data, .launches = list_.launches().size(), .args = args};
}

void GpuOps::PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) {
  prepared_ = {};
  const auto count = static_cast<int64_t>(picks.size());
  if (count == 0) return;
  const int32_t* const added = AddToBatch(picks);
  if (added == nullptr) return;
  Launch(Kernel::pick_rows, {Blocks(cols, kThreads), count}, kThreads, 0,
         gpu::PickRowsArgs{.x = x.data,
                           .out = out.data,
                           .stride = x.stride,
                           .out_stride = out.stride,
                           .cols = static_cast<int32_t>(cols),
                           .count = static_cast<int32_t>(count),
                           .picks = added});
}

void GpuOps::PickColumns(ConstRows x, DeviceVector columns, MutableRows out) {
  prepared_ = {};
  Launch(Kernel::pick_rows, {Blocks(columns.size, kThreads), x.rows}, kThreads, 0,
         gpu::PickRowsArgs{.x = x.data,
                           .out = out.data,
                           .stride = x.stride,
                           .out_stride = out.stride,
                           .cols = static_cast<int32_t>(columns.size),
                           .count = static_cast<int32_t>(x.rows),
                           .columns = columns.data});
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

absl::StatusOr<absl::Span<const kernels::LargestValue>> GpuOps::Largest(ConstRows x, int64_t cols,
                                                                        int count) {
  const int64_t chunks = Blocks(cols, kernels::kLargestChunk), values = x.rows * chunks * count,
                bytes = values * static_cast<int64_t>(sizeof(kernels::LargestValue));
  if (bytes > largest_.bytes()) return absl::InternalError("the largest of more rows than there is room for");
  Launch(Kernel::largest, {chunks, x.rows}, gpu::kLargestThreads, gpu::kLargestSharedBytes,
         gpu::LargestArgs{.x = x.data,
                          .stride = x.stride,
                          .cols = static_cast<int32_t>(cols),
                          .count = count,
                          .out = reinterpret_cast<kernels::LargestValue*>(largest_.data())});
  Submit();
  runtime_->CopyToHost(largest_host_.data(), largest_.data(), bytes);
  BW_RETURN_IF_ERROR(Finish());
  return absl::MakeConstSpan(reinterpret_cast<const kernels::LargestValue*>(largest_host_.data()), values);
}

// -- Weights that come and go

absl::StatusOr<bool> GpuOps::ReserveSlots(int slots, int64_t bytes) {
  slot_bytes_ = RoundUp(bytes, kImagePageBytes);
  BW_ASSIGN_OR_RETURN(slots_, GpuMemory::Allocate(runtime_, slots * slot_bytes_));
  // The memory is being cleared, in an order of work that the lane's first copies know nothing of.
  BW_RETURN_IF_ERROR(runtime_->Synchronize());
  BW_ASSIGN_OR_RETURN(lane_, runtime_->MakeCopyLane(slots));
  return true;
}

std::byte* GpuOps::FillSlot(int slot, absl::Span<std::byte> image) {
  char* const to = slots_.data() + slot * slot_bytes_;
  lane_->Fill(slot, to, image.data(), static_cast<int64_t>(image.size()));
  return reinterpret_cast<std::byte*>(to);
}

void GpuOps::UseSlot(int slot) {
  Submit();  // what came before need not wait for the weights
  lane_->Use(slot);
}

absl::StatusOr<bool> GpuOps::SlotFilled(int slot) {
  BW_RETURN_IF_ERROR(status_);
  return lane_->Filled(slot);
}

absl::Status GpuOps::ReleaseSlot(int slot) {
  Submit();
  lane_->Release(slot);
  return status_;
}

// -- Between device and host

void GpuOps::Submit() {
  prepared_ = {};
  last_add_ = {};
  if (to_send_.size() > 0) {
    runtime_->CopyToDevice(batch_device_.data() + to_send_.begin, batch_host_.data() + to_send_.begin,
                           to_send_.size());
    to_send_ = {};
  }
  if (list_.empty()) return;
  // Lists about slots come again with other addresses, and in pieces: more than there are graphs for. Who
  // waits for weights has the time for launches.
  const bool repeats = lane_ == nullptr && list_.launches().size() >= kGraphLaunchesMin;
  gpu::Graph* const graph = repeats ? GraphOfList() : nullptr;
  graph != nullptr ? runtime_->Run(*graph) : runtime_->Run(list_);
  list_.Clear();
}

// Null if the list comes for the first time: it is remembered. A step is mostly like the one before it, which
// is seen at once, and lists that differ do so early.
gpu::Graph* GpuOps::GraphOfList() {
  const auto found = std::find_if(graphs_.begin(), graphs_.end(),
                                  [this](const CachedGraph& cached) { return cached.list == list_; });
  if (found != graphs_.end()) {
    graphs_.splice(graphs_.begin(), graphs_, found);
    if (found->graph == nullptr && room_for_graphs_) MakeGraph(*found);
    return found->graph.get();
  }
  graphs_.push_front({list_, nullptr});
  if (graphs_.size() > kGraphsMax) {
    if (graphs_.back().graph != nullptr) Wait();  // one that runs must not go
    if (status_.ok()) graphs_.pop_back();
  }
  return nullptr;
}

// Nothing but speed hangs on it: without memory for more, lists are run as lists.
void GpuOps::MakeGraph(CachedGraph& cached) {
  absl::StatusOr<std::unique_ptr<gpu::Graph>> graph = runtime_->MakeGraph(cached.list);
  if (graph.ok()) {
    cached.graph = *std::move(graph);
  } else if (absl::IsResourceExhausted(graph.status())) {
    room_for_graphs_ = false;
    LogWarning("steps are not repeated as graphs, which makes short ones slower: ", graph.status().message());
  } else {
    status_.Update(graph.status());
  }
}

void GpuOps::Wait() {
  if (wait_ == nullptr) return status_.Update(runtime_->Synchronize());
  if (status_.ok()) status_ = wait_();
}

absl::Status GpuOps::Finish() {
  Submit();
  Wait();
  return status_;
}

absl::Status GpuOps::Read(const float* from, absl::Span<float> to) {
  Submit();
  runtime_->CopyToHost(to.data(), from, static_cast<int64_t>(to.size() * sizeof(float)));
  return Finish();
}

absl::Status GpuOps::Write(absl::Span<const float> from, float* to) {
  BW_RETURN_IF_ERROR(WriteLater(from, to));
  return Finish();
}

absl::Status GpuOps::WriteLater(absl::Span<const float> from, float* to) {
  Submit();
  runtime_->CopyToDevice(to, from.data(), static_cast<int64_t>(from.size() * sizeof(float)));
  return status_;
}

}  // namespace bellwether
