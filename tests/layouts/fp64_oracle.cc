#include "tests/layouts/fp64_oracle.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "model/shard_size.h"

namespace bellwether {
namespace {

using Vector = std::vector<double>;

constexpr int64_t kActivationGroup = 32;
// In steps of int8. What fp32 has done to an activation by then is some 1e-6 of a row's spread, which is some
// 60 steps.
constexpr double kCloseCall = 2e-4;

void Add(const Vector& more, Vector& sum) {
  for (size_t i = 0; i < more.size(); ++i) sum[i] += more[i];
}

// Columns [begin, end) of `x`, at most a group, to int8 and back.
void RoundGroup(Vector& x, int64_t begin, int64_t end, int* close_calls) {
  double maximum = 0;
  for (int64_t i = begin; i < end; ++i) maximum = std::max(maximum, std::abs(x[i]));
  if (maximum == 0) return;
  const double scale = maximum / 127;
  for (int64_t i = begin; i < end; ++i) {
    const double steps = x[i] / scale;
    *close_calls += std::abs(std::abs(steps - std::trunc(steps)) - 0.5) < kCloseCall ? 1 : 0;
    x[i] = scale * std::nearbyint(steps);
  }
}

double Gelu(double x) { return x / 2 * (1 + std::tanh(0.79788456 * x * (1 + 0.044715 * x * x))); }

}  // namespace

Fp64Oracle::Fp64Oracle(const Checkpoint& checkpoint, Quantize quantize) : config_(checkpoint.config()) {
  const int slices = SliceCount(config_);
  for (int i = 0; i <= slices; ++i) {
    head_bounds_.push_back(SliceHeads(config_, {0, i}).end * config_.head_dim);
    ffn_bounds_.push_back(SliceFfn(config_, {0, i}).end);
  }
  if (config_.alibi) {
    alibi_slopes_ = AlibiSlopes(config_.heads);
  } else {
    inverse_frequencies_ = RopeInverseFrequencies(config_);
  }
  const auto matrix = [&](TensorRole role, int32_t layer) {
    return ReadMatrix(checkpoint, {role, layer}, quantize);
  };
  for (int32_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_.emplace_back();
    layer.attention_norm = ReadNorm(checkpoint, TensorRole::kAttentionNorm, i);
    layer.mlp_norm = ReadNorm(checkpoint, TensorRole::kMlpNorm, i);
    if (config_.head_norm) {
      layer.query_norm = ReadNorm(checkpoint, TensorRole::kQueryNorm, i);
      layer.key_norm = ReadNorm(checkpoint, TensorRole::kKeyNorm, i);
    }
    layer.query = matrix(TensorRole::kQuery, i);
    layer.key = matrix(TensorRole::kKey, i);
    layer.value = matrix(TensorRole::kValue, i);
    layer.attention_output = matrix(TensorRole::kAttentionOutput, i);
    if (config_.gated_mlp) layer.gate = matrix(TensorRole::kGate, i);
    layer.up = matrix(TensorRole::kUp, i);
    layer.down = matrix(TensorRole::kDown, i);
  }
  embedding_ = matrix(TensorRole::kEmbedding, 0);
  head_ = matrix(TensorRole::kHead, 0);
  if (config_.embedding_norm) embedding_norm_ = ReadNorm(checkpoint, TensorRole::kEmbeddingNorm, 0);
  final_norm_ = ReadNorm(checkpoint, TensorRole::kFinalNorm, 0);
}

Fp64Oracle::Matrix Fp64Oracle::ReadMatrix(const Checkpoint& checkpoint, TensorKey key, Quantize quantize) {
  const TensorInfo* info = checkpoint.Find(key);
  BW_CHECK(info != nullptr);
  Matrix matrix{.rows = info->rows, .cols = info->cols};
  cols_max_ = std::max(cols_max_, matrix.cols);
  if (info->input_order != nullptr) matrix.input_order = *info->input_order;
  const TensorFormat format = PackedFormat(key, info->format, quantize);
  matrix.quantized = IsQuantized(format.format);
  const TensorWindow whole{0, info->rows, 0, info->cols};
  std::vector<float> values(info->rows * info->cols);
  BW_CHECK(checkpoint.ReadFloats(key, whole, absl::MakeSpan(values)).ok());
  matrix.values.assign(values.begin(), values.end());
  if (matrix.quantized) {
    const bool stored = IsQuantized(info->format.format);
    const absl::StatusOr<QuantizedRows> rows =
        stored ? checkpoint.ReadQuantized(key, whole)
               : QuantizeRows(values, info->rows, info->cols, format.format);
    BW_CHECK(rows.ok());
    const int64_t groups = (info->cols + format.group - 1) / format.group;
    for (int64_t i = 0; i < info->rows * info->cols; ++i) {
      const int64_t group = i / info->cols * groups + i % info->cols / format.group;
      matrix.values[i] = static_cast<double>(rows->scales[group]) * rows->q[i] +
                         (rows->offsets.empty() ? 0.0 : rows->offsets[group]);
    }
  }
  key.bias = true;
  if (checkpoint.Find(key) != nullptr) matrix.bias = ReadVector(checkpoint, key);
  return matrix;
}

Vector Fp64Oracle::ReadVector(const Checkpoint& checkpoint, const TensorKey& key) {
  const TensorInfo* info = checkpoint.Find(key);
  BW_CHECK(info != nullptr);
  std::vector<float> values(info->rows * info->cols);
  BW_CHECK(checkpoint.ReadFloats(key, {0, info->rows, 0, info->cols}, absl::MakeSpan(values)).ok());
  return {values.begin(), values.end()};
}

Fp64Oracle::Norm Fp64Oracle::ReadNorm(const Checkpoint& checkpoint, TensorRole role, int32_t layer) {
  Norm norm{.weight = ReadVector(checkpoint, {role, layer})};
  if (checkpoint.config().layer_norm) norm.bias = ReadVector(checkpoint, {role, layer, /*bias=*/true});
  return norm;
}

Vector Fp64Oracle::Normed(const Vector& x, const Norm& norm) const {
  const auto size = static_cast<double>(x.size());
  double mean = 0, squares = 0;
  if (config_.layer_norm) {
    for (const double value : x) mean += value / size;
  }
  for (const double value : x) squares += (value - mean) * (value - mean) / size;
  Vector out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = (x[i] - mean) / std::sqrt(squares + config_.norm_epsilon) * norm.weight[i];
    if (config_.layer_norm) out[i] += norm.bias[i];
  }
  return out;
}

void Fp64Oracle::NormHeads(const Norm& norm, Vector& heads) const {
  for (auto head = heads.begin(); head != heads.end(); head += config_.head_dim) {
    const Vector normed = Normed(Vector(head, head + config_.head_dim), norm);
    std::copy(normed.begin(), normed.end(), head);
  }
}

Vector Fp64Oracle::Multiply(const Matrix& matrix, const Vector& x, const std::vector<int64_t>& bounds,
                            int* close_calls) {
  Vector input = x;
  for (size_t col = 0; col < matrix.input_order.size(); ++col) input[col] = x[matrix.input_order[col]];
  if (matrix.quantized) {
    for (size_t slice = 0; slice + 1 < bounds.size(); ++slice) {
      for (int64_t begin = bounds[slice]; begin < bounds[slice + 1]; begin += kActivationGroup) {
        RoundGroup(input, begin, std::min(begin + kActivationGroup, bounds[slice + 1]), close_calls);
      }
    }
  }
  Vector out = matrix.bias.empty() ? Vector(matrix.rows) : matrix.bias;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t col = 0; col < matrix.cols; ++col) {
      out[row] += matrix.values[row * matrix.cols + col] * input[col];
    }
  }
  return out;
}

void Fp64Oracle::Rotate(Vector& heads, int64_t position) const {
  const int64_t half = config_.head_dim / 2;
  for (size_t head = 0; head < heads.size(); head += config_.head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * inverse_frequencies_[i];
      const double low = heads[head + i], high = heads[head + half + i];
      heads[head + i] = low * std::cos(angle) - high * std::sin(angle);
      heads[head + half + i] = high * std::cos(angle) + low * std::sin(angle);
    }
  }
}

Vector Fp64Oracle::Attend(const Vector& query, const Cache& cache) const {
  const int64_t head_dim = config_.head_dim;
  Vector out(query.size());
  for (int64_t head = 0; head < config_.heads; ++head) {
    const int64_t from = head / (config_.heads / config_.kv_heads) * head_dim;
    double sum = 0;
    for (size_t position = 0; position < cache.keys.size(); ++position) {
      double score = 0;
      for (int64_t d = 0; d < head_dim; ++d) {
        score += query[head * head_dim + d] * cache.keys[position][from + d];
      }
      score /= std::sqrt(static_cast<double>(head_dim));
      if (config_.alibi) score += static_cast<double>(alibi_slopes_[head]) * static_cast<double>(position);
      const double weight = std::exp(score);
      sum += weight;
      for (int64_t d = 0; d < head_dim; ++d) {
        out[head * head_dim + d] += weight * cache.values[position][from + d];
      }
    }
    for (int64_t d = 0; d < head_dim; ++d) out[head * head_dim + d] /= sum;
  }
  return out;
}

void Fp64Oracle::RunLayer(const Layer& layer, int64_t position, Cache& cache, Vector& residual,
                          int* close_calls) const {
  Vector normed = Normed(residual, layer.attention_norm);
  Vector query = Multiply(layer.query, normed, close_calls), key = Multiply(layer.key, normed, close_calls);
  if (config_.head_norm) NormHeads(layer.query_norm, query), NormHeads(layer.key_norm, key);
  if (!config_.alibi) Rotate(query, position), Rotate(key, position);
  cache.keys.push_back(std::move(key));
  cache.values.push_back(Multiply(layer.value, normed, close_calls));
  if (config_.residual_after_norm) residual = normed;
  Add(Multiply(layer.attention_output, Attend(query, cache), head_bounds_, close_calls), residual);

  normed = Normed(residual, layer.mlp_norm);
  Vector inner = Multiply(layer.up, normed, close_calls);
  if (config_.gated_mlp) {
    const Vector gate = Multiply(layer.gate, normed, close_calls);
    for (size_t i = 0; i < inner.size(); ++i) inner[i] *= gate[i] / (1 + std::exp(-gate[i]));
  } else {
    std::transform(inner.begin(), inner.end(), inner.begin(), Gelu);
  }
  if (config_.residual_after_norm) residual = normed;
  Add(Multiply(layer.down, inner, ffn_bounds_, close_calls), residual);
}

Fp64Oracle::Answer Fp64Oracle::Ask(absl::Span<const TokenId> tokens) const {
  Answer answer;
  std::vector<Cache> caches(layers_.size());
  Vector residual;
  for (size_t position = 0; position < tokens.size(); ++position) {
    const auto row = embedding_.values.begin() + tokens[position] * embedding_.cols;
    residual.assign(row, row + embedding_.cols);
    if (config_.embedding_norm) residual = Normed(residual, embedding_norm_);
    for (size_t i = 0; i < layers_.size(); ++i) {
      RunLayer(layers_[i], static_cast<int64_t>(position), caches[i], residual, &answer.close_calls);
    }
  }
  answer.logprobs = Multiply(head_, Normed(residual, final_norm_), &answer.close_calls);
  double sum = 0, mean = 0, squares = 0;
  const auto vocab = static_cast<double>(answer.logprobs.size());
  for (const double logit : answer.logprobs) sum += std::exp(logit), mean += logit / vocab;
  for (double& logit : answer.logprobs) {
    squares += (logit - mean) * (logit - mean) / vocab;
    logit -= std::log(sum);
  }
  answer.spread = std::sqrt(squares);
  return answer;
}

}  // namespace bellwether
