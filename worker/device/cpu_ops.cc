#include "worker/device/cpu_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exact_math.h"
#include "common/status.h"
#include "model/row_limits.h"
#include "worker/device/cpu_device.h"

namespace bellwether {
namespace {

static_assert(kHeadDimMax == kernels::kHeadDimMax, "what a file may claim, kernels have room for");

// Below this many rows an elementwise operation takes less time than waking the other threads.
constexpr int64_t kRowsWorthSharing = 4;

ConstRows Part(ConstRows x, int64_t begin, int64_t end) { return {x.row(begin), end - begin, x.stride}; }
MutableRows Part(MutableRows x, int64_t begin, int64_t end) { return {x.row(begin), end - begin, x.stride}; }

absl::StatusOr<AlignedBuffer> AllocateFor(const char* what, int64_t bytes) {
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(bytes);
  if (!buffer.ok()) return Annotate(buffer.status(), what);
  return buffer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceOps>> CpuOps::Create(const Device::OpsOptions& options,
                                                          ThreadPool::Options threads) {
  const auto level = kernels::ParseKernelLevel(options.kernel_level);
  if (!level.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("no kernel level \"", options.kernel_level, "\""));
  }
  BW_ASSIGN_OR_RETURN(const kernels::KernelTable* kernels, kernels::GetKernels(*level));
  BW_ASSIGN_OR_RETURN(Memory memory, Reserve(options));
  return std::unique_ptr<DeviceOps>(new CpuOps(options, *kernels, std::move(threads), std::move(memory)));
}

absl::StatusOr<CpuOps::Memory> CpuOps::Reserve(const Device::OpsOptions& options) {
  const ModelConfig& config = *options.config;
  const SliceRange slices = options.rank.slices;
  const int64_t rows = std::min<int64_t>(options.step_tokens, kLayerRowsMax);
  const int64_t kv_heads = SliceKvHeads(config, slices).size();
  // What products read: norms, and this rank's part of attention and MLP.
  const int64_t cols = std::max({int64_t{config.hidden}, SliceHeads(config, slices).size() * config.head_dim,
                                 SliceFfn(config, slices).size()});
  Memory memory;
  absl::StatusOr<KvCache> kv_cache = KvCache::Create({.layers = options.layers,
                                                      .heads = kv_heads,
                                                      .head_dim = config.head_dim,
                                                      .blocks = options.kv_blocks,
                                                      .dtype = options.kv_type});
  if (!kv_cache.ok()) return Annotate(kv_cache.status(), "KV cache");
  memory.kv_cache = *std::move(kv_cache);
  BW_ASSIGN_OR_RETURN(memory.prepared,
                      AllocateFor("prepared activations",
                                  rows * kernels::PackedMatrix::PreparedRowBytesMax(cols, slices.size())));
  BW_ASSIGN_OR_RETURN(memory.pieces, AllocateFor("pieces of attention",
                                                 rows * kv_heads * static_cast<int64_t>(sizeof(Piece))));
  if (config.alibi) return memory;
  const int64_t angles = int64_t{options.step_tokens} * (config.head_dim / 2);
  for (AlignedBuffer* buffer : {&memory.cosines, &memory.sines}) {
    BW_ASSIGN_OR_RETURN(*buffer, AllocateFor("angles", angles * static_cast<int64_t>(sizeof(float))));
  }
  return memory;
}

CpuOps::CpuOps(const Device::OpsOptions& options, const kernels::KernelTable& kernels,
               ThreadPool::Options threads, Memory memory)
    : kernels_(kernels),
      pool_(std::move(threads)),
      kv_cache_(std::move(memory.kv_cache)),
      prepared_(std::move(memory.prepared)),
      pieces_(std::move(memory.pieces)),
      tree_sum_(options.roots, SliceCount(*options.config), kernels.add),
      config_(*options.config),
      heads_(SliceHeads(config_, options.rank.slices)),
      kv_heads_(SliceKvHeads(config_, options.rank.slices)),
      queries_per_kv_(config_.heads / config_.kv_heads),
      score_scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)))),
      inverse_frequencies_(config_.alibi ? std::vector<float>() : RopeInverseFrequencies(config_)),
      cosines_(std::move(memory.cosines)),
      sines_(std::move(memory.sines)) {
  if (config_.alibi) alibi_slopes_ = AlibiSlopes(config_.heads);
}

absl::StatusOr<float*> CpuOps::Allocate(int64_t floats) {
  BW_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                      AlignedBuffer::Allocate(floats * static_cast<int64_t>(sizeof(float))));
  return allocated_.emplace_back(std::move(buffer)).as<float>();
}

// The angle is rounded to fp32 before its cosine is taken, as Hugging Face does.
void CpuOps::Begin(const Batch& batch) {
  batch_ = &batch;
  auto *cosine = cosines_.as<float>(), *sine = sines_.as<float>();
  for (const int32_t position : batch.positions) {
    for (const float inverse_frequency : inverse_frequencies_) {
      const float angle = static_cast<float>(position) * inverse_frequency;
      *cosine++ = static_cast<float>(Cos(angle));
      *sine++ = static_cast<float>(Sin(angle));
    }
  }
}

void CpuOps::ForRows(int64_t rows, ThreadPool::Body body) {
  if (rows < kRowsWorthSharing) {
    if (rows > 0) body(0, rows);
  } else {
    pool_.ParallelFor(rows, body);
  }
}

// -- Row by row

void CpuOps::Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) {
  const kernels::PackedMatrix& packed = PackedOf(embedding);
  ForRows(batch_->rows(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t token = int64_t{batch_->tokens[row]} - first;
      if (token < 0 || token >= packed.rows()) continue;
      packed.GetRow(token, absl::MakeSpan(out.row(row), packed.cols()));
    }
  });
}

void CpuOps::Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon, MutableRows out) {
  const auto rounded_epsilon = static_cast<float>(epsilon);
  ForRows(x.rows, [&](int64_t begin, int64_t end) {
    if (weights.bias.empty()) {
      kernels_.rms_norm(Part(x, begin, end), weights.weight.data, cols, rounded_epsilon,
                        Part(out, begin, end));
    } else {
      kernels_.layer_norm(Part(x, begin, end), weights.weight.data, weights.bias.data, cols, rounded_epsilon,
                          Part(out, begin, end));
    }
  });
}

void CpuOps::SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) {
  ForRows(gate.rows, [&](int64_t begin, int64_t end) {
    kernels_.silu_multiply(Part(gate, begin, end), Part(up, begin, end), cols);
  });
}

void CpuOps::Gelu(MutableRows x, int64_t cols) {
  ForRows(x.rows, [&](int64_t begin, int64_t end) { kernels_.gelu(Part(x, begin, end), cols); });
}

void CpuOps::Add(ConstRows before, MutableRows sum, DeviceVector bias, MutableRows residual) {
  const int64_t hidden = config_.hidden;
  ForRows(sum.rows, [&](int64_t begin, int64_t end) {
    if (!bias.empty()) kernels_.add_bias(Part(sum, begin, end), bias.data, hidden);
    kernels_.add(before.row(begin), sum.row(begin), (end - begin) * hidden, residual.row(begin));
  });
}

void CpuOps::PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) {
  for (size_t i = 0; i < picks.size(); ++i) std::copy_n(x.row(picks[i]), cols, out.row(i));
}

void CpuOps::PickColumns(ConstRows x, DeviceVector columns, MutableRows out) {
  ForRows(x.rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = x.row(row);
      float* to = out.row(row);
      for (int64_t i = 0; i < columns.size; ++i) to[i] = from[static_cast<int64_t>(columns.data[i])];
    }
  });
}

void CpuOps::SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) {
  tree_sum_.Sum(roots, count, out);
}

absl::Status CpuOps::Read(const float* from, absl::Span<float> to) {
  std::copy_n(from, to.size(), to.data());
  return absl::OkStatus();
}

absl::Status CpuOps::Write(absl::Span<const float> from, float* to) {
  std::copy(from.begin(), from.end(), to);
  return absl::OkStatus();
}

// -- Products

void CpuOps::Multiply(ConstRows x, absl::Span<const Product> products) {
  // Products whose matrices read the activations in the same form are done together.
  for (size_t first = 0; first < products.size();) {
    const kernels::PackedMatrix& weights = PackedOf(*products[first].weights);
    size_t last = first + 1;
    while (last < products.size() && weights.SharesPreparation(PackedOf(*products[last].weights))) ++last;

    BW_CHECK_GE(prepared_.size(), x.rows * weights.prepared_row_bytes());
    ForRows(x.rows, [&](int64_t begin, int64_t end) {
      kernels_.prepare_rows(weights, x, begin, end, prepared_.data());
    });
    MultiplyPrepared(x.rows, products.subspan(first, last - first));
    first = last;
  }
}

void CpuOps::MultiplyPrepared(int64_t rows, absl::Span<const Product> products) {
  int64_t panels = 0;
  for (const Product& product : products) panels += PackedOf(*product.weights).panels();
  pool_.ParallelFor(panels, [&](int64_t begin, int64_t end) {
    int64_t first_panel = 0;  // of the product, counted over all
    for (const Product& product : products) {
      const kernels::PackedMatrix& weights = PackedOf(*product.weights);
      const int64_t count = weights.panels();
      const int64_t from = std::max(begin, first_panel) - first_panel;
      const int64_t to = std::min(end, first_panel + count) - first_panel;
      first_panel += count;
      if (from >= to) continue;
      kernels_.matmul({.weights = &weights,
                       .prepared = prepared_.data(),
                       .rows = rows,
                       .panel_begin = from,
                       .panel_end = to,
                       .y = product.y,
                       .stride = product.stride,
                       .root_stride = product.root_stride});
      if (product.bias.empty()) continue;
      const int64_t column = from * kernels::kPanelRows;
      const int64_t columns = std::min(to * kernels::kPanelRows, weights.rows()) - column;
      kernels_.add_bias({product.y + column, rows, product.stride}, product.bias.data + column, columns);
    }
  });
}

// -- Attention

void CpuOps::NormHeads(DeviceVector weight, int64_t count, float* heads) {
  if (weight.empty()) return;
  const int64_t head_dim = config_.head_dim;
  const MutableRows rows = {heads, count, head_dim};
  kernels_.rms_norm(AsConst(rows), weight.data, head_dim, static_cast<float>(config_.norm_epsilon), rows);
}

void CpuOps::RotateAndStore(int64_t layer, Range rows, const HeadNorms& norms, MutableRows query,
                            MutableRows key, ConstRows value) {
  const Batch& batch = *batch_;
  const int head_dim = config_.head_dim;
  ForRows(rows.size(), [&](int64_t begin, int64_t end) {
    for (const Batch::Run& run : batch.runs) {
      const int64_t first = std::max<int64_t>(rows.begin + begin, run.row);
      const int64_t last = std::min<int64_t>(rows.begin + end, run.row + run.count);
      for (int64_t row = first; row < last; ++row) {
        const int64_t own = row - rows.begin;
        NormHeads(norms.query, heads_.size(), query.row(own));
        NormHeads(norms.key, kv_heads_.size(), key.row(own));
        if (!config_.alibi) {
          const float* cosines = cosines_.as<float>() + row * (head_dim / 2);
          const float* sines = sines_.as<float>() + row * (head_dim / 2);
          kernels_.rope(query.row(own), static_cast<int>(heads_.size()), head_dim, cosines, sines);
          kernels_.rope(key.row(own), static_cast<int>(kv_heads_.size()), head_dim, cosines, sines);
        }
        for (int64_t head = 0; head < kv_heads_.size(); ++head) {
          kernels_.write_kv(kv_cache_.head(layer, head, run.sequence->blocks.data()), batch.positions[row],
                            key.row(own) + head * head_dim, value.row(own) + head * head_dim);
        }
      }
    }
  });
}

int64_t CpuOps::CutAttention(Range rows) {
  const int64_t rows_per_piece = std::max<int64_t>(1, kernels::kAttentionQueriesMax / queries_per_kv_);
  BW_CHECK_GE(pieces_.size(), rows.size() * kv_heads_.size() * static_cast<int64_t>(sizeof(Piece)));
  int64_t count = 0;
  for (const Batch::Run& run : batch_->runs) {
    const int64_t first = std::max<int64_t>(rows.begin, run.row);
    const int64_t last = std::min<int64_t>(rows.end, run.row + run.count);
    for (int64_t kv_head = 0; kv_head < kv_heads_.size(); ++kv_head) {
      for (int64_t row = first; row < last; row += rows_per_piece) {
        pieces_.as<Piece>()[count++] = {&run, kv_head, {row, std::min(row + rows_per_piece, last)}};
      }
    }
  }
  return count;
}

void CpuOps::Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) {
  const int64_t count = CutAttention(rows);
  pool_.ParallelForDynamic(count, /*grain=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      AttendPiece(layer, pieces_.as<Piece>()[i], rows.begin, query, out);
    }
  });
}

void CpuOps::AttendPiece(int64_t layer, const Piece& piece, int64_t first_row, ConstRows query,
                         MutableRows out) {
  const int64_t head_dim = config_.head_dim;
  const Batch::Run& run = *piece.run;
  const kernels::KvHead cache = kv_cache_.head(layer, piece.kv_head, run.sequence->blocks.data());
  // The query heads of this KV head that are this rank's own.
  const int64_t group = kv_heads_.begin + piece.kv_head;
  const int64_t first_head = std::max(heads_.begin, group * queries_per_kv_);
  const int64_t last_head = std::min(heads_.end, (group + 1) * queries_per_kv_);

  std::array<kernels::AttentionQuery, kernels::kAttentionQueriesMax> queries;
  int count = 0;
  const auto flush = [&] {
    if (count > 0) kernels_.attention(cache, queries.data(), count, score_scale_);
    count = 0;
  };
  for (int64_t row = piece.rows.begin; row < piece.rows.end; ++row) {
    for (int64_t head = first_head; head < last_head; ++head) {
      const int64_t column = (head - heads_.begin) * head_dim;
      queries[count++] = {.q = query.row(row - first_row) + column,
                          .out = out.row(row - first_row) + column,
                          .position = run.position + static_cast<int32_t>(row - run.row),
                          .alibi_slope = alibi_slopes_.empty() ? 0.0f : alibi_slopes_[head]};
      if (count == kernels::kAttentionQueriesMax) flush();
    }
  }
  flush();
}

}  // namespace bellwether
