#include "model/tokenizer/tokenizer.h"

#include "model/tokenizer/incremental_detokenizer.h"

namespace bellwether {

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(std::string_view text, const EncodeOptions& options,
                                                       const EncodeLimits& limits) const {
  const TextPiece piece{text, options.parse_special_tokens};
  return EncodePieces({&piece, 1}, options.add_special_tokens, limits);
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  IncrementalDetokenizer detokenizer(this, {.at_text_start = true, .skip_special = skip_special});
  std::string text;
  for (const TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

}  // namespace bellwether
