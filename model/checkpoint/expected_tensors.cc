#include "model/checkpoint/expected_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

constexpr const char* kRoleNames[] = {
    "embedding", "embedding norm",   "attention norm", "query", "key",
    "value",     "attention output", "MLP norm",       "gate",  "up",
    "down",      "final norm",       "head",
};

bool IsOutsideLayers(TensorRole role) {
  return role == TensorRole::kEmbedding || role == TensorRole::kEmbeddingNorm ||
         role == TensorRole::kFinalNorm || role == TensorRole::kHead;
}

// Adds a matrix and, if asked, its bias of one element a row.
void AppendMatrix(TensorKey key, int64_t rows, int64_t cols, bool bias, std::vector<ExpectedTensor>& out) {
  out.push_back({key, rows, cols});
  if (bias) out.push_back({{key.role, key.layer, /*bias=*/true}, 1, rows});
}

}  // namespace

std::string Name(const TensorKey& key) {
  std::string name;
  if (!IsOutsideLayers(key.role)) name = absl::StrCat("layer ", key.layer, " ");
  absl::StrAppend(&name, kRoleNames[static_cast<int>(key.role)], key.bias ? " bias" : " weight");
  return name;
}

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden, ffn = config.ffn;
  const int64_t query_rows = int64_t{config.heads} * config.head_dim;
  const int64_t kv_rows = int64_t{config.kv_heads} * config.head_dim;
  std::vector<ExpectedTensor> out;
  const auto norm = [&](TensorRole role, int32_t layer) {
    out.push_back({{role, layer}, 1, hidden});
    if (config.layer_norm) out.push_back({{role, layer, /*bias=*/true}, 1, hidden});
  };

  out.push_back({{TensorRole::kEmbedding}, config.vocab, hidden});
  if (config.embedding_norm) norm(TensorRole::kEmbeddingNorm, 0);
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    norm(TensorRole::kAttentionNorm, layer);
    AppendMatrix({TensorRole::kQuery, layer}, query_rows, hidden, config.qkv_bias, out);
    AppendMatrix({TensorRole::kKey, layer}, kv_rows, hidden, config.qkv_bias, out);
    AppendMatrix({TensorRole::kValue, layer}, kv_rows, hidden, config.qkv_bias, out);
    AppendMatrix({TensorRole::kAttentionOutput, layer}, hidden, query_rows, config.attention_output_bias,
                 out);
    norm(TensorRole::kMlpNorm, layer);
    if (config.gated_mlp) AppendMatrix({TensorRole::kGate, layer}, ffn, hidden, config.mlp_bias, out);
    AppendMatrix({TensorRole::kUp, layer}, ffn, hidden, config.mlp_bias, out);
    AppendMatrix({TensorRole::kDown, layer}, hidden, ffn, config.mlp_bias, out);
  }
  norm(TensorRole::kFinalNorm, 0);
  if (!config.tied_head) out.push_back({{TensorRole::kHead}, config.vocab, hidden});
  return out;
}

TensorTable::TensorTable(const ModelConfig& config) : expected_(ExpectedTensors(config)) {
  shapes_.reserve(expected_.size());
  for (const ExpectedTensor& tensor : expected_) shapes_.emplace(tensor.key, &tensor);
}

absl::Status TensorTable::Add(const TensorKey& key, const StoredTensor& tensor) {
  const auto found = shapes_.find(key);
  if (found == shapes_.end()) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.info.source, ": the config has no ", Name(key)));
  }
  const ExpectedTensor& expected = *found->second;
  if (tensor.info.rows != expected.rows || tensor.info.cols != expected.cols) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.info.source, ": ", Name(key), " is ", tensor.info.rows, " x ", tensor.info.cols,
                     " but the config asks for ", expected.rows, " x ", expected.cols));
  }
  if (!tensors_.emplace(key, tensor).second) {
    return absl::InvalidArgumentError(absl::StrCat(
        tensor.info.source, ": ", Name(key), " is there twice; the other is ", tensors_[key].info.source));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::flat_hash_map<TensorKey, StoredTensor>> TensorTable::Finish() && {
  const ExpectedTensor* missing = nullptr;
  size_t count = 0;
  for (const ExpectedTensor& tensor : expected_) {
    if (tensors_.contains(tensor.key)) continue;
    if (missing == nullptr) missing = &tensor;
    ++count;
  }
  if (missing != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(missing->key), " (", missing->rows, " x ", missing->cols, ") is missing",
                     count > 1 ? absl::StrCat(", and ", count - 1, " more tensors") : ""));
  }
  return std::move(tensors_);
}

}  // namespace bellwether
