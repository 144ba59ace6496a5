#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {

// The part of a tokenizer that turns plain text, with no special token in it, into tokens. Two kinds exist:
// by score (sentencepiece) and by rank of merges (tokenizer.json and GGUF "gpt2").
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // Appends the tokens of `text`, which is not empty. `at_start`: nothing, not even a special token, stands
  // before it. `never`: tokens that must not come out of it, few. Thread-safe. Errors are those of `out`, and
  // of a text that a pattern cannot split.
  virtual absl::Status Encode(std::string_view text, bool at_start, absl::Span<const TokenId> never,
                              EncodeProgress* out) const = 0;
  // The most bytes of text, of those that last, that one token can stand for; kAnyBytes if a step can make a
  // text shorter.
  virtual size_t token_bytes_max() const = 0;
  // How many bytes of `text` become part of a token for certain. A vocabulary may lack a few, which vanish.
  virtual size_t LastingBytes(std::string_view text) const { return text.size(); }
};

}  // namespace bellwether
