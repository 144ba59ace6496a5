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
#include "model/config.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// What a tensor is for, under one name for every container and family.
enum class TensorRole : uint8_t {
  kEmbedding,        // [vocab, hidden]
  kEmbeddingNorm,    // [hidden], BLOOM
  kAttentionNorm,    // [hidden]
  kQuery,            // [heads * head_dim, hidden], rows in Hugging Face's order (RoPE pairs i, i + head_dim / 2)
  kKey,              // [kv_heads * head_dim, hidden], likewise
  kValue,            // [kv_heads * head_dim, hidden]
  kAttentionOutput,  // [hidden, heads * head_dim]
  kMlpNorm,          // [hidden]
  kGate,             // [ffn, hidden], gated MLPs only
  kUp,               // [ffn, hidden]
  kDown,             // [hidden, ffn]
  kFinalNorm,        // [hidden]
  kHead,             // [vocab, hidden]; a tied checkpoint gives its embedding
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
  int group = 0;             // quantised: columns that share a scale (16, 32, 64, 128), counted from the row's start
  bool has_offset = false;   // value = scale * q + offset
  bool half_scales = false;  // scales and offsets are exactly fp16
  friend bool operator==(const TensorFormat&, const TensorFormat&) = default;
};

struct TensorInfo {
  int64_t rows = 0;  // 1 for vectors
  int64_t cols = 0;
  TensorFormat format;
  std::string source;  // file and name there, for messages
};

// A rectangle of a tensor: rows [row_begin, row_end), columns [col_begin, col_end).
struct TensorWindow {
  int64_t row_begin = 0, row_end = 0;
  int64_t col_begin = 0, col_end = 0;
};

// Quantised values of a window whose columns start at a multiple of the group.
struct QuantizedRows {
  std::vector<int8_t> q;        // [rows][cols]
  std::vector<float> scales;    // [rows][ceil(cols / group)]
  std::vector<float> offsets;   // likewise; empty without offsets
};

// A model on disk, opened: its config, its tensors under canonical names, its tokenizer. Files are mapped and read only
// where asked. Const methods may be called from several threads. A file that changes underneath gives errors or wrong
// numbers, never a crash of ours beyond what the kernel signals for a truncated mapping.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // `path`: a Hugging Face directory (config.json, *.safetensors) or a .gguf file. Errors name file, tensor and
  // reason.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);

  virtual const ModelConfig& config() const = 0;
  virtual const std::string& path() const = 0;
  // "safetensors" or "gguf"
  virtual std::string container() const = 0;

  // Null if the checkpoint has no such tensor.
  virtual const TensorInfo* Find(const TensorKey& key) const = 0;
  // Every tensor, in a fixed order.
  virtual std::vector<TensorKey> Keys() const = 0;

  // Decodes a window to fp32, row by row into out[rows * cols]; works for every format.
  virtual absl::Status ReadFloats(const TensorKey& key, const TensorWindow& window, absl::Span<float> out) const = 0;
  // Quantised tensors only: the stored numbers. window.col_begin is a multiple of the group and col_end one too or
  // the row's end.
  virtual absl::StatusOr<QuantizedRows> ReadQuantized(const TensorKey& key, const TensorWindow& window) const = 0;
  // Gives back the file pages of a tensor that will not be read again.
  virtual void DropPages(const TensorKey& key) const = 0;

  // SHA-256 (64 hex digits) over config, tensor table and samples of every tensor (DESIGN 6).
  virtual absl::StatusOr<std::string> ModelId() const = 0;

  // NotFound if the checkpoint carries none.
  virtual absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer() const = 0;
  // The chat template text the checkpoint carries (Jinja), to recognise the family by; empty if none.
  virtual std::string chat_template_text() const = 0;
};

// Rounds rows of floats to int8 or int4 (the formats of --quantize): q, scale per group of 32 columns. Used by every
// loader, so that the same checkpoint gives the same numbers everywhere. cols need not be a multiple of the group.
inline constexpr int kQuantizeGroup = 32;
TensorFormat QuantizeFormat(WeightFormat format);
QuantizedRows QuantizeRows(absl::Span<const float> values, int64_t rows, int64_t cols, WeightFormat format);

}  // namespace bellwether
