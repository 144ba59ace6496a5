#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {

// Longest text one Encode takes, in bytes; longer ones are refused with INVALID_ARGUMENT.
inline constexpr size_t kMaxTextBytes = size_t{4} << 20;

struct EncodeOptions {
  bool add_special_tokens = true;     // BOS/EOS, as the tokenizer's own post-processing says
  bool parse_special_tokens = false;  // "</s>" in the text is that token; else it is plain text
};

// A stretch of one text. Pieces are joined before they are tokenised (merges cross their borders); a special
// token is recognised only where it lies wholly within a piece that allows it.
struct TextPiece {
  std::string_view text;
  bool parse_special_tokens = false;
  // Tokens that are special in the whole text if any piece names them, whatever the vocabulary calls them:
  // found where special tokens are allowed, as they are spelled, and plain text elsewhere.
  absl::Span<const TokenId> marks = {};
};

// Text to token ids and back. Immutable after construction: every method may be called from any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Any bytes are accepted, broken UTF-8 too. INVALID_ARGUMENT: text longer than kMaxTextBytes. Else the
  // errors of `limits`.
  virtual absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                            bool add_special_tokens,
                                                            const EncodeLimits& limits) const = 0;
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text, const EncodeOptions& options,
                                              const EncodeLimits& limits = {}) const;
  // `text` has no fewer tokens: a quick look that encodes nothing. 0 where text may vanish, such as spaces
  // that are dropped.
  virtual size_t FewestTokens(std::string_view text) const = 0;

  // The bytes a token stands for in the middle of a text, perhaps only a part of a UTF-8 character. "" for
  // special tokens and for ids outside the vocabulary. The view lives as long as the tokenizer.
  virtual std::string_view TokenBytes(TokenId id) const = 0;
  // The piece as the tokenizer's file spells it ("</s>", "▁the", "Ġthe"); "" for ids outside the vocabulary.
  virtual std::string_view TokenPiece(TokenId id) const = 0;
  // Control tokens such as BOS, EOS and <|im_start|>; false for ids outside the vocabulary.
  virtual bool IsSpecial(TokenId id) const = 0;
  // Highest id + 1. A model may have more embedding rows than this.
  virtual int32_t vocab_size() const = 0;
  virtual std::optional<TokenId> bos_id() const = 0;
  // Tokens that end an answer by themselves; may be empty.
  virtual const std::vector<TokenId>& eos_ids() const = 0;
  // The token spelled exactly so in the tokenizer's file, special tokens included.
  virtual std::optional<TokenId> FindToken(std::string_view piece) const = 0;
  // Whether encoding puts a space before a text, so that decoding a text from its start drops one.
  virtual bool strips_leading_space() const = 0;

  // A whole text from its start, as valid UTF-8: broken bytes become U+FFFD. With `skip_special` false
  // special tokens appear as they are spelled. Equal to an IncrementalDetokenizer fed with the same ids.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special) const;
};

// The tokenizer of a Hugging Face checkpoint directory: tokenizer.json, else tokenizer.model (as transformers
// prefers them), with BOS/EOS from tokenizer_config.json, special_tokens_map.json and generation_config.json.
// NOT_FOUND: the directory has neither. UNIMPLEMENTED: a kind that is not supported, by name.
// INVALID_ARGUMENT: damaged.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromDirectory(const std::string& dir);

// What a GGUF file says about its tokenizer: the tokenizer.ggml.* keys, already parsed.
struct GgufVocabulary {
  std::string model;  // tokenizer.ggml.model: "llama" (sentencepiece) or "gpt2" (byte-level BPE)
  std::string pre;    // tokenizer.ggml.pre: which pre-tokenizer "gpt2" uses; "" when the key is absent
  std::vector<std::string> tokens;
  std::vector<float> scores;  // same length as tokens, or empty
  std::vector<int32_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; or empty
  std::vector<std::string> merges;  // "left right" in order of rank; for "gpt2"
  std::optional<int32_t> bos_id, eos_id, eot_id, unknown_id, padding_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};
// Errors as LoadTokenizerFromDirectory's.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizerFromGguf(GgufVocabulary vocabulary);

}  // namespace bellwether
