#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/dtype.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_torch.h"

// Meta's layout of a LLaMA, by the inverse of transformers' converter. Test-only.

namespace bellwether::testing_files {

inline std::string MetaName(const TensorKey& key) {
  const std::map<TensorRole, std::string> names = {{TensorRole::kEmbedding, "tok_embeddings"},
                                                   {TensorRole::kFinalNorm, "norm"},
                                                   {TensorRole::kHead, "output"},
                                                   {TensorRole::kAttentionNorm, "attention_norm"},
                                                   {TensorRole::kQuery, "attention.wq"},
                                                   {TensorRole::kKey, "attention.wk"},
                                                   {TensorRole::kValue, "attention.wv"},
                                                   {TensorRole::kMlpNorm, "ffn_norm"},
                                                   {TensorRole::kAttentionOutput, "attention.wo"},
                                                   {TensorRole::kGate, "feed_forward.w1"},
                                                   {TensorRole::kDown, "feed_forward.w2"},
                                                   {TensorRole::kUp, "feed_forward.w3"}};
  const bool outside = key.role == TensorRole::kEmbedding || key.role == TensorRole::kFinalNorm ||
                       key.role == TensorRole::kHead;
  return absl::StrCat(outside ? "" : absl::StrCat("layers.", key.layer, "."), names.at(key.role), ".weight");
}

// Rows of values.
struct Grid {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

inline Grid WholeTensor(const Checkpoint& checkpoint, const TensorKey& key) {
  const TensorInfo& info = *checkpoint.Find(key);
  Grid grid{info.rows, info.cols, std::vector<float>(info.rows * info.cols)};
  EXPECT_TRUE(checkpoint.ReadFloats(key, {0, info.rows, 0, info.cols}, absl::MakeSpan(grid.values)).ok());
  return grid;
}

// Pairs (i, i + head / 2) of each head become neighbours.
inline Grid Interleaved(const Grid& grid, int64_t head) {
  Grid result = grid;
  for (int64_t row = 0; row < grid.rows; ++row) {
    const int64_t within = row % head, half = head / 2;
    const int64_t to = row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
    std::copy_n(grid.values.begin() + row * grid.cols, grid.cols, result.values.begin() + to * grid.cols);
  }
  return result;
}

inline Grid PartOf(const Grid& grid, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  Grid part{rows, cols, {}};
  for (int64_t r = row; r < row + rows; ++r) {
    const auto begin = grid.values.begin() + r * grid.cols + col;
    part.values.insert(part.values.end(), begin, begin + cols);
  }
  return part;
}

inline std::string FloatBytes(const std::vector<float>& values, WeightFormat format) {
  std::string bytes;
  for (const float value : values) {
    bytes += format == WeightFormat::kF16    ? Bytes(F16FromF32(value))
             : format == WeightFormat::kBF16 ? Bytes(BF16FromF32(value))
                                             : Bytes(value);
  }
  return bytes;
}

inline std::string TorchStorage(WeightFormat format) {
  return format == WeightFormat::kF16    ? "HalfStorage"
         : format == WeightFormat::kBF16 ? "BFloat16Storage"
                                         : "FloatStorage";
}

struct MetaOptions {
  int shards = 1;
  bool embedding_rows = false;  // shards hold rows of the embedding, as since Llama 3
  bool rope_in_layers = false;  // LLaMA 1
};

// The shard's part of a tensor.
inline Grid MetaPart(const Grid& grid, const TensorKey& key, const MetaOptions& options, int shard) {
  if (grid.rows == 1) return grid;
  const bool columns = key.role == TensorRole::kAttentionOutput || key.role == TensorRole::kDown ||
                       (key.role == TensorRole::kEmbedding && !options.embedding_rows);
  const int64_t rows = columns ? grid.rows : grid.rows / options.shards;
  const int64_t cols = columns ? grid.cols / options.shards : grid.cols;
  return PartOf(grid, columns ? 0 : shard * rows, rows, columns ? shard * cols : 0, cols);
}

inline std::string MetaShard(const Checkpoint& checkpoint, const MetaOptions& options, int shard) {
  std::vector<std::pair<std::string, std::string>> members;
  std::map<std::string, std::string> storages;
  const auto add = [&](const std::string& name, const Grid& grid, WeightFormat format) {
    const std::string storage = std::to_string(storages.size());
    storages[storage] = FloatBytes(grid.values, format);
    const auto count = static_cast<int64_t>(grid.values.size());
    const std::string where = pickle::Storage(TorchStorage(format), storage, count);
    members.emplace_back(name, grid.rows == 1
                                   ? pickle::Tensor(where, 0, {grid.cols}, {1})
                                   : pickle::Tensor(where, 0, {grid.rows, grid.cols}, {grid.cols, 1}));
  };
  for (const TensorKey& key : checkpoint.Keys()) {
    Grid grid = WholeTensor(checkpoint, key);
    if (key.role == TensorRole::kQuery || key.role == TensorRole::kKey)
      grid = Interleaved(grid, checkpoint.config().head_dim);
    add(MetaName(key), MetaPart(grid, key, options, shard), checkpoint.Find(key)->format.format);
  }
  const Grid table{1, 2, {1, 0.5f}};
  add(options.rope_in_layers ? "layers.0.attention.inner_attention.rope.freqs" : "rope.freqs", table,
      WeightFormat::kF32);
  return TorchFile(pickle::Whole(pickle::OrderedDict(members)), storages);
}

// Writes consolidated.NN.pth and params.json; the MLP's width is spelled as Meta spells it. `more` are
// further members of params.json.
inline void WriteMetaLlama(const Checkpoint& checkpoint, const TemporaryDirectory& dir,
                           const MetaOptions& options, const std::string& more = "") {
  const ModelConfig& config = checkpoint.config();
  for (int shard = 0; shard < options.shards; ++shard) {
    dir.Write(absl::StrFormat("consolidated.%02d.pth", shard), MetaShard(checkpoint, options, shard));
  }
  const double stretch = config.ffn / (8.0 * config.hidden / 3);
  dir.Write(
      "params.json",
      absl::StrCat(R"({"dim": )", config.hidden, R"(, "n_layers": )", config.layers, R"(, "n_heads": )",
                   config.heads, R"(, "n_kv_heads": )", config.kv_heads, R"(, "head_dim": )", config.head_dim,
                   R"(, "multiple_of": )", config.ffn, R"(, "ffn_dim_multiplier": )", stretch * 0.9,
                   R"(, "norm_eps": )", config.norm_epsilon, R"(, "vocab_size": -1)", more, "}"));
}

}  // namespace bellwether::testing_files
