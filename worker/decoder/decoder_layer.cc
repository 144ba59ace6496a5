#include "worker/decoder/decoder_layer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/status.h"
#include "model/row_limits.h"

namespace bellwether {

using kernels::ConstRows;
using kernels::MutableRows;

DecoderLayer::DecoderLayer(const Options& options)
    : config_(*options.config),
      kv_cache_(*options.kv_cache),
      group_(*options.group),
      ops_(*options.ops),
      heads_(SliceHeads(config_, options.slices)),
      kv_heads_(SliceKvHeads(config_, options.slices)),
      ffn_(SliceFfn(config_, options.slices).size()),
      roots_(static_cast<int64_t>(SubtreeRoots(options.slices, SliceCount(config_)).size())),
      queries_per_kv_(config_.heads / config_.kv_heads),
      score_scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)))) {
  if (config_.alibi) alibi_slopes_ = AlibiSlopes(config_.heads);
}

absl::Status DecoderLayer::Run(const LayerWeights& weights, int64_t cache_layer, const Batch& batch,
                               MessageTag tag, MutableRows residual) {
  const int64_t blocks = (batch.rows() + kLayerRowsMax - 1) / kLayerRowsMax;
  for (int64_t i = 0; i < blocks; ++i) {
    const Range rows{batch.rows() * i / blocks, batch.rows() * (i + 1) / blocks};
    tag.rows = static_cast<int32_t>(rows.size());
    BW_RETURN_IF_ERROR(RunBlock(weights, cache_layer, batch, rows, tag,
                                {residual.row(rows.begin), rows.size(), residual.stride}));
  }
  return absl::OkStatus();
}

absl::Status DecoderLayer::RunBlock(const LayerWeights& w, int64_t cache_layer, const Batch& batch,
                                    Range rows, const MessageTag& tag, MutableRows residual) {
  const int64_t hidden = config_.hidden;
  TakeScratch(rows.size());

  // x += attention(norm(x))
  ops_.Norm(AsConst(residual), w.attention_norm, hidden, config_.norm_epsilon, normed_);
  ops_.Multiply(AsConst(normed_), {{&w.query, &w.query_bias, query_.data, query_.stride},
                                   {&w.key, &w.key_bias, key_.data, key_.stride},
                                   {&w.value, &w.value_bias, value_.data, value_.stride}});
  Attention(cache_layer, batch, rows);
  BW_RETURN_IF_ERROR(
      AddReduced(w.attention_output, w.attention_output_bias, AsConst(attended_), tag, residual));

  // x += mlp(norm(x))
  ops_.Norm(AsConst(residual), w.mlp_norm, hidden, config_.norm_epsilon, normed_);
  if (config_.gated_mlp) {
    ops_.Multiply(AsConst(normed_), {{&w.gate, &w.gate_bias, activated_.data, activated_.stride},
                                     {&w.up, &w.up_bias, up_.data, up_.stride}});
    ops_.ForRows(activated_.rows, [&](int64_t begin, int64_t end) {
      ops_.kernels().silu_multiply({activated_.row(begin), end - begin, activated_.stride},
                                   {up_.row(begin), end - begin, up_.stride}, ffn_);
    });
  } else {
    ops_.Multiply(AsConst(normed_), {{&w.up, &w.up_bias, activated_.data, activated_.stride}});
    ops_.ForRows(activated_.rows, [&](int64_t begin, int64_t end) {
      ops_.kernels().gelu({activated_.row(begin), end - begin, activated_.stride}, ffn_);
    });
  }
  return AddReduced(w.down, w.down_bias, AsConst(activated_), tag, residual);
}

// q, k, v -> attended -> partial sums -> their sum, then up -> activated -> partial sums -> their sum: each
// is made from the one before and nothing older (but `normed_`), so two blocks of memory take turns.
void DecoderLayer::TakeScratch(int64_t rows) {
  const int64_t hidden = config_.hidden;
  const int64_t query = heads_.size() * config_.head_dim;
  const int64_t key = kv_heads_.size() * config_.head_dim;
  const int64_t up = config_.gated_mlp ? ffn_ : 0;
  normed_ = normed_buffer_.Get(rows, hidden);

  float* even = even_buffer_.Get(rows, std::max({query + 2 * key, up, roots_ * hidden})).data;
  query_ = {even, rows, query};
  key_ = {query_.row(rows), rows, key};
  value_ = {key_.row(rows), rows, key};
  up_ = {even, rows, up};
  partial_ = {even, roots_ * rows, hidden};

  float* odd = odd_buffer_.Get(rows, std::max({query, ffn_, hidden})).data;
  attended_ = {odd, rows, query};
  activated_ = {odd, rows, ffn_};
  sum_ = {odd, rows, hidden};
}

absl::Status DecoderLayer::AddReduced(const kernels::PackedMatrix& weights, const std::vector<float>& bias,
                                      ConstRows input, const MessageTag& tag, MutableRows residual) {
  const int64_t rows = input.rows;
  const int64_t hidden = config_.hidden;
  ops_.Multiply(input, {{&weights, nullptr, partial_.data, hidden, /*root_stride=*/rows * hidden}});

  MutableRows sum = partial_;  // a rank that owns the whole tree has nothing to add
  if (group_.size() > 1) {
    sum = sum_;  // in place of `input`
    BW_RETURN_IF_ERROR(group_.AllReduce(tag, absl::MakeConstSpan(partial_.data, roots_ * rows * hidden),
                                        absl::MakeSpan(sum.data, rows * hidden)));
  }
  ops_.ForRows(rows, [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * hidden;
    if (!bias.empty()) ops_.kernels().add_bias({sum.row(begin), end - begin, hidden}, bias.data(), hidden);
    const float* before = config_.residual_after_norm ? normed_.row(begin) : residual.row(begin);
    ops_.kernels().add(before, sum.row(begin), count, residual.row(begin));
  });
  return absl::OkStatus();
}

void DecoderLayer::WriteKeysAndValues(int64_t cache_layer, const Batch& batch, Range rows) {
  const int head_dim = config_.head_dim;
  ops_.ForRows(rows.size(), [&](int64_t begin, int64_t end) {
    for (const Batch::Run& run : batch.runs) {
      const int64_t first = std::max<int64_t>(rows.begin + begin, run.row);
      const int64_t last = std::min<int64_t>(rows.begin + end, run.row + run.count);
      for (int64_t row = first; row < last; ++row) {
        const int64_t own = row - rows.begin;
        if (!config_.alibi) {
          const float* cosines = batch.cosines.data() + row * (head_dim / 2);
          const float* sines = batch.sines.data() + row * (head_dim / 2);
          ops_.kernels().rope(query_.row(own), static_cast<int>(heads_.size()), head_dim, cosines, sines);
          ops_.kernels().rope(key_.row(own), static_cast<int>(kv_heads_.size()), head_dim, cosines, sines);
        }
        for (int64_t head = 0; head < kv_heads_.size(); ++head) {
          ops_.kernels().write_kv(kv_cache_.head(cache_layer, head, run.sequence->blocks.data()),
                                  batch.positions[row], key_.row(own) + head * head_dim,
                                  value_.row(own) + head * head_dim);
        }
      }
    }
  });
}

void DecoderLayer::Attention(int64_t cache_layer, const Batch& batch, Range rows) {
  WriteKeysAndValues(cache_layer, batch, rows);
  // A piece of work is one KV head and as many rows as one kernel call takes with all query heads of that KV
  // head.
  struct Piece {
    const Batch::Run* run;
    int64_t kv_head;
    Range rows;
  };
  const int64_t rows_per_piece = std::max<int64_t>(1, kernels::kAttentionQueriesMax / queries_per_kv_);
  std::vector<Piece> pieces;
  for (const Batch::Run& run : batch.runs) {
    const int64_t first = std::max<int64_t>(rows.begin, run.row);
    const int64_t last = std::min<int64_t>(rows.end, run.row + run.count);
    for (int64_t kv_head = 0; kv_head < kv_heads_.size(); ++kv_head) {
      for (int64_t row = first; row < last; row += rows_per_piece) {
        pieces.push_back({&run, kv_head, {row, std::min(row + rows_per_piece, last)}});
      }
    }
  }
  ops_.ForItems(static_cast<int64_t>(pieces.size()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      AttendRows(cache_layer, *pieces[i].run, pieces[i].kv_head, pieces[i].rows, rows.begin);
    }
  });
}

void DecoderLayer::AttendRows(int64_t cache_layer, const Batch::Run& run, int64_t kv_head, Range rows,
                              int64_t first_row) {
  const int64_t head_dim = config_.head_dim;
  const kernels::KvHead cache = kv_cache_.head(cache_layer, kv_head, run.sequence->blocks.data());
  // The query heads of this KV head that are this rank's own.
  const int64_t group = kv_heads_.begin + kv_head;
  const int64_t first_head = std::max(heads_.begin, group * queries_per_kv_);
  const int64_t last_head = std::min(heads_.end, (group + 1) * queries_per_kv_);

  std::array<kernels::AttentionQuery, kernels::kAttentionQueriesMax> queries;
  int count = 0;
  const auto flush = [&] {
    if (count > 0) ops_.kernels().attention(cache, queries.data(), count, score_scale_);
    count = 0;
  };
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t head = first_head; head < last_head; ++head) {
      const int64_t column = (head - heads_.begin) * head_dim;
      queries[count++] = {.q = query_.row(row - first_row) + column,
                          .out = attended_.row(row - first_row) + column,
                          .position = run.position + static_cast<int32_t>(row - run.row),
                          .alibi_slope = alibi_slopes_.empty() ? 0.0f : alibi_slopes_[head]};
      if (count == kernels::kAttentionQueriesMax) flush();
    }
  }
  flush();
}

}  // namespace bellwether
