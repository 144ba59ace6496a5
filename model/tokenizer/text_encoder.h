#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/ids.h"

namespace bellwether {

// The part of a tokenizer that turns plain text, with no special token in it, into tokens. Two kinds exist:
// by score (sentencepiece) and by rank of merges (tokenizer.json and GGUF "gpt2").
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // Appends the tokens of `text`, which is not empty. `at_start`: nothing, not even a special token, stands
  // before it. `never`: tokens that must not come out of it, few. Thread-safe.
  virtual absl::Status Encode(std::string_view text, bool at_start, absl::Span<const TokenId> never,
                              std::vector<TokenId>* out) const = 0;
};

}  // namespace bellwether
