#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/dtype.h"
#include "common/generation_options.h"
#include "model/checkpoint/read_options.h"
#include "model/config.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// What a tensor is for, under one name for every container and family.
enum class TensorRole : uint8_t {
  kEmbedding,      // [vocab, hidden]
  kEmbeddingNorm,  // [hidden], BLOOM
  kAttentionNorm,  // [hidden]
  kQuery,  // [heads * head_dim, hidden], rows in Hugging Face's order (RoPE pairs i, i + head_dim / 2)
  kKey,    // [kv_heads * head_dim, hidden], likewise
  kValue,  // [kv_heads * head_dim, hidden]
  kAttentionOutput,  // [hidden, heads * head_dim]
  kMlpNorm,          // [hidden]
  kGate,             // [ffn, hidden], gated MLPs only
  kUp,               // [ffn, hidden]
  kDown,             // [hidden, ffn]
  kFinalNorm,        // [hidden]
  kHead,             // [vocab, hidden]; a tied checkpoint gives its embedding
  kQueryNorm,        // [head_dim], of each query head, before RoPE
  kKeyNorm,          // [head_dim], likewise
};

struct TensorKey {
  TensorRole role = TensorRole::kEmbedding;
  int32_t layer = 0;  // 0 for tensors outside the layers
  bool bias = false;
  friend bool operator==(const TensorKey&, const TensorKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const TensorKey& key) {
    return H::combine(std::move(h), key.role, key.layer, key.bias);
  }
};
// "layer 3 query weight"
std::string Name(const TensorKey& key);

// How a tensor's values are stored, in the words of PackedMatrix.
struct TensorFormat {
  WeightFormat format = WeightFormat::kF32;
  int group = 0;  // quantised: columns that share a scale (16, 32, 64, 128), counted from the row's start
  bool has_offset = false;   // value = scale * q + offset
  bool half_scales = false;  // scales and offsets are exactly fp16
  bool reordered = false;  // its columns are not in the order of the inputs: TensorInfo says which are which
  friend bool operator==(const TensorFormat&, const TensorFormat&) = default;
};

struct TensorInfo {
  int64_t rows = 0;  // 1 for vectors
  int64_t cols = 0;
  TensorFormat format;
  std::string source;  // file and name there, for messages
  // If `format` says so: the input that each column is multiplied with. Matrices with the same input share
  // it.
  std::shared_ptr<const std::vector<int32_t>> input_order;
};

// A rectangle of a tensor: rows [row_begin, row_end), columns [col_begin, col_end).
struct TensorWindow {
  int64_t row_begin = 0, row_end = 0;
  int64_t col_begin = 0, col_end = 0;
};

// Quantised values of a window whose columns start at a multiple of the group.
struct QuantizedRows {
  std::vector<int8_t> q;       // [rows][cols]
  std::vector<float> scales;   // [rows][ceil(cols / group)]
  std::vector<float> offsets;  // likewise; empty without offsets
};

struct CheckpointContents;

// A model on disk, opened: its config, its tensors under canonical names, its tokenizer. Files are mapped and
// read only where asked. Const methods may be called from several threads. A file that changes underneath
// gives errors or wrong numbers, never a crash of ours beyond what the kernel signals for a truncated
// mapping.
class Checkpoint {
 public:
  // `path`: a Hugging Face directory (config.json and .safetensors or torch files), one such file of weights
  // with the rest beside it, Meta's directory of a LLaMA, a GGUF file, ORG/NAME[@REVISION] in the hub's cache
  // (model/checkpoint/hub_cache.h), or the name of a model with
  // random weights ("random:llama-1.1b:bf16", see model/random_checkpoint.h). Errors name file, tensor and
  // reason.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path,
                                                          const ReadOptions& options = {});

  // Called by the readers of containers, whose tables are complete and checked.
  explicit Checkpoint(CheckpointContents contents);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  const ModelConfig& config() const;
  const std::string& path() const;
  // "safetensors", "torch", "meta", "gguf" or "random"
  const std::string& container() const;
  // What it was opened with, as far as that changes what is read.
  const ReadingText& reading() const;
  // Which files its tensors are read from, by what tells whether one of them has changed
  // (FileMapping::identity); empty for random weights. The model id rests on samples, this on every file.
  std::string SourceFiles() const;
  // Bytes that its tensors take in their files, tables left out; 0 for random weights.
  int64_t StoredBytes() const;

  // Null if the checkpoint has no such tensor. The head of a tied checkpoint is its embedding.
  const TensorInfo* Find(const TensorKey& key) const;
  // Every tensor that takes space, in a fixed order: layer by layer, the embedding first, the head (unless
  // tied) last.
  std::vector<TensorKey> Keys() const;

  // Decodes a window to fp32, row by row into out[rows * cols]; works for every format. InvalidArgument if a
  // value does not fit the type that it is rounded to.
  absl::Status ReadFloats(const TensorKey& key, const TensorWindow& window, absl::Span<float> out) const;
  // Quantised tensors only: the stored numbers. window.col_begin is a multiple of the group and col_end one
  // too or the row's end.
  absl::StatusOr<QuantizedRows> ReadQuantized(const TensorKey& key, const TensorWindow& window) const;
  // Gives back the file pages of a tensor that will not be read again.
  void DropPages(const TensorKey& key) const;

  // SHA-256 (64 hex digits) over config, tensor table and samples of every tensor.
  absl::StatusOr<std::string> ModelId() const;

  // NotFound if the checkpoint carries none.
  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer() const;
  // The chat template text the checkpoint carries (Jinja), to recognise the family by; empty if none.
  const std::string& chat_template_text() const;
  // What the checkpoint calls itself (GGUF general.name); empty if it does not say.
  const std::string& model_name() const;
  // How its authors sample, as generation_config.json has it; empty fields where they do not say.
  const GenerationOptions& generation_defaults() const;

 private:
  const std::unique_ptr<const CheckpointContents> contents_;
};

// Rounds rows of floats to int8 or int4 (the formats of --quantize): q, scale per group of 32 columns. Used
// by every loader, so that the same checkpoint gives the same numbers everywhere. cols need not be a multiple
// of the group. The scale is rounded to fp16 before it is used; a group that holds a NaN or an infinity
// becomes NaN. The first column is the first of a group.
inline constexpr int kQuantizeGroup = 32;
TensorFormat QuantizeFormat(WeightFormat format);
QuantizedRows QuantizeRows(absl::Span<const float> values, int64_t rows, int64_t cols, WeightFormat format);

}  // namespace bellwether
