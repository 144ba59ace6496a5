#include "model/checkpoint/expected_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/layer_tensors.h"

namespace bellwether {
namespace {

absl::string_view RoleName(TensorRole role) {
  switch (role) {
    case TensorRole::kEmbedding:
      return "embedding";
    case TensorRole::kEmbeddingNorm:
      return "embedding norm";
    case TensorRole::kAttentionNorm:
      return "attention norm";
    case TensorRole::kQuery:
      return "query";
    case TensorRole::kKey:
      return "key";
    case TensorRole::kValue:
      return "value";
    case TensorRole::kAttentionOutput:
      return "attention output";
    case TensorRole::kMlpNorm:
      return "MLP norm";
    case TensorRole::kGate:
      return "gate";
    case TensorRole::kUp:
      return "up";
    case TensorRole::kDown:
      return "down";
    case TensorRole::kFinalNorm:
      return "final norm";
    case TensorRole::kHead:
      return "head";
    case TensorRole::kQueryNorm:
      return "query norm";
    case TensorRole::kKeyNorm:
      return "key norm";
  }
  return "unknown tensor";
}

// Adds a tensor and, if asked, its bias: as a norm, or of one element a row.
void Append(TensorKey key, int64_t rows, int64_t cols, bool bias, std::vector<ExpectedTensor>& out) {
  out.push_back({key, rows, cols});
  if (bias) out.push_back({{key.role, key.layer, /*bias=*/true}, 1, IsNorm(key.role) ? cols : rows});
}

}  // namespace

std::string Name(const TensorKey& key) {
  std::string name;
  if (!IsOutsideLayers(key.role)) name = absl::StrCat("layer ", key.layer, " ");
  absl::StrAppend(&name, RoleName(key.role), key.bias ? " bias" : " weight");
  return name;
}

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const std::vector<LayerTensor> tensors = LayerTensors(config);
  std::vector<ExpectedTensor> out;
  Append({TensorRole::kEmbedding}, config.vocab, config.hidden, /*bias=*/false, out);
  if (config.embedding_norm) Append({TensorRole::kEmbeddingNorm}, 1, config.hidden, config.layer_norm, out);
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const LayerTensor& tensor : tensors) {
      const TensorPart whole = PartOf(config, tensor.split, {0, SliceCount(config)});
      Append({tensor.role, layer}, whole.rows.size(), whole.cols.size(), tensor.bias, out);
    }
  }
  Append({TensorRole::kFinalNorm}, 1, config.hidden, config.layer_norm, out);
  if (!config.tied_head) Append({TensorRole::kHead}, config.vocab, config.hidden, /*bias=*/false, out);
  return out;
}

TensorTable::TensorTable(const ModelConfig& config) : expected_(ExpectedTensors(config)) {
  shapes_.reserve(expected_.size());
  for (const ExpectedTensor& tensor : expected_) shapes_.emplace(tensor.key, &tensor);
}

const ExpectedTensor* TensorTable::Expected(const TensorKey& key) const {
  const auto found = shapes_.find(key);
  return found == shapes_.end() ? nullptr : found->second;
}

absl::Status TensorTable::Add(const TensorKey& key, const StoredTensor& tensor) {
  const ExpectedTensor* found = Expected(key);
  if (found == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.info.source, ": the config has no ", Name(key)));
  }
  const ExpectedTensor& expected = *found;
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
