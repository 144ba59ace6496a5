#include "worker/decoder/decoder_layer.h"

#include <algorithm>

#include "common/status.h"

namespace bellwether {

DecoderLayer::DecoderLayer(const Options& options)
    : config_(*options.config),
      group_(*options.group),
      ops_(*options.ops),
      rows_max_(options.rows_max),
      reordered_(options.reordered),
      query_cols_(SliceHeads(config_, options.slices).size() * config_.head_dim),
      key_cols_(SliceKvHeads(config_, options.slices).size() * config_.head_dim),
      ffn_(SliceFfn(config_, options.slices).size()),
      roots_(static_cast<int64_t>(SubtreeRoots(options.slices, SliceCount(config_)).size())) {}

absl::StatusOr<std::unique_ptr<DecoderLayer>> DecoderLayer::Create(const Options& options) {
  auto layer = std::unique_ptr<DecoderLayer>(new DecoderLayer(options));
  if (const absl::Status status = layer->Allocate(); !status.ok())
    return Annotate(status, "scratch of a layer");
  return layer;
}

absl::Status DecoderLayer::Allocate() {
  BW_ASSIGN_OR_RETURN(normed_buffer_, ops_.Allocate(rows_max_ * config_.hidden));
  if (reordered_) {
    BW_ASSIGN_OR_RETURN(ordered_buffer_, ops_.Allocate(rows_max_ * config_.hidden));
  }
  BW_ASSIGN_OR_RETURN(even_buffer_, ops_.Allocate(rows_max_ * EvenFloats()));
  BW_ASSIGN_OR_RETURN(odd_buffer_, ops_.Allocate(rows_max_ * OddFloats()));
  return absl::OkStatus();
}

int64_t DecoderLayer::EvenFloats() const {
  return std::max({query_cols_ + 2 * key_cols_, config_.gated_mlp ? ffn_ : 0, roots_ * config_.hidden});
}

int64_t DecoderLayer::OddFloats() const { return std::max({query_cols_, ffn_, int64_t{config_.hidden}}); }

absl::Status DecoderLayer::Run(const LayerWeights& weights, int64_t cache_layer, MessageTag tag,
                               MutableRows residual) {
  const int64_t blocks = (residual.rows + rows_max_ - 1) / rows_max_;
  for (int64_t i = 0; i < blocks; ++i) {
    const Range rows{residual.rows * i / blocks, residual.rows * (i + 1) / blocks};
    tag.rows = static_cast<int32_t>(rows.size());
    BW_RETURN_IF_ERROR(
        RunBlock(weights, cache_layer, rows, tag, {residual.row(rows.begin), rows.size(), residual.stride}));
  }
  return absl::OkStatus();
}

absl::Status DecoderLayer::RunBlock(const LayerWeights& w, int64_t cache_layer, Range rows,
                                    const MessageTag& tag, MutableRows residual) {
  const int64_t hidden = config_.hidden;
  TakeScratch(rows.size());

  // x += attention(norm(x))
  ops_.Norm(AsConst(residual), w.attention_norm, hidden, config_.norm_epsilon, normed_);
  const ConstRows attention_input = NormedInOrder(w.attention_order);
  ops_.Multiply(attention_input, {{w.query.get(), w.query_bias, query_.data, query_.stride},
                                  {w.key.get(), w.key_bias, key_.data, key_.stride},
                                  {w.value.get(), w.value_bias, value_.data, value_.stride}});
  ops_.RotateAndStore(cache_layer, rows, w.head_norms, query_, key_, AsConst(value_));
  ops_.Attend(cache_layer, rows, AsConst(query_), attended_);
  BW_RETURN_IF_ERROR(
      AddReduced(*w.attention_output, w.attention_output_bias, AsConst(attended_), tag, residual));

  // x += mlp(norm(x))
  ops_.Norm(AsConst(residual), w.mlp_norm, hidden, config_.norm_epsilon, normed_);
  const ConstRows mlp_input = NormedInOrder(w.mlp_order);
  if (config_.gated_mlp) {
    ops_.Multiply(mlp_input, {{w.gate.get(), w.gate_bias, activated_.data, activated_.stride},
                              {w.up.get(), w.up_bias, up_.data, up_.stride}});
    ops_.SiluMultiply(activated_, AsConst(up_), ffn_);
  } else {
    ops_.Multiply(mlp_input, {{w.up.get(), w.up_bias, activated_.data, activated_.stride}});
    ops_.Gelu(activated_, ffn_);
  }
  return AddReduced(*w.down, w.down_bias, AsConst(activated_), tag, residual);
}

// q, k, v -> attended -> partial sums -> their sum, then up -> activated -> partial sums -> their sum: each
// is made from the one before and nothing older (but `normed_`), so two blocks of memory take turns.
void DecoderLayer::TakeScratch(int64_t rows) {
  normed_ = {normed_buffer_, rows, config_.hidden};
  ordered_ = {ordered_buffer_, rows, config_.hidden};

  query_ = {even_buffer_, rows, query_cols_};
  key_ = {query_.row(rows), rows, key_cols_};
  value_ = {key_.row(rows), rows, key_cols_};
  up_ = {even_buffer_, rows, ffn_};
  partial_ = {even_buffer_, roots_ * rows, config_.hidden};

  attended_ = {odd_buffer_, rows, query_cols_};
  activated_ = {odd_buffer_, rows, ffn_};
  sum_ = {odd_buffer_, rows, config_.hidden};
}

ConstRows DecoderLayer::NormedInOrder(DeviceVector order) {
  if (order.empty()) return AsConst(normed_);
  ops_.PickColumns(AsConst(normed_), order, ordered_);
  return AsConst(ordered_);
}

absl::Status DecoderLayer::AddReduced(const DeviceMatrix& weights, DeviceVector bias, ConstRows input,
                                      const MessageTag& tag, MutableRows residual) {
  const int64_t rows = input.rows;
  const int64_t hidden = config_.hidden;
  ops_.Multiply(input, {{&weights, {}, partial_.data, hidden, /*root_stride=*/rows * hidden}});

  MutableRows sum = {partial_.data, rows, hidden};  // a rank that owns the whole tree has nothing to add
  if (group_.size() > 1) {
    sum = sum_;  // in place of `input`
    BW_RETURN_IF_ERROR(group_.AllReduce(tag, absl::MakeConstSpan(partial_.data, roots_ * rows * hidden),
                                        absl::MakeSpan(sum.data, rows * hidden)));
  }
  const MutableRows before = config_.residual_after_norm ? normed_ : residual;
  ops_.Add(AsConst(before), sum, bias, residual);
  return absl::OkStatus();
}

}  // namespace bellwether
