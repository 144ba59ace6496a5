#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

struct VocabularyEntry {
  std::string piece;  // as the file spells it; "" for an id that the file does not name
  std::string bytes;  // what it stands for in a text; "" for special tokens
  bool special = false;
};

// What every kind of tokenizer is made of; the loaders fill it in.
struct TokenizerParts {
  std::vector<VocabularyEntry> entries;  // by id
  std::unique_ptr<TextEncoder> encoder;
  AddedTokens added;
  std::vector<TokenId> prefix;  // put before and after a text with add_special_tokens
  std::vector<TokenId> suffix;
  std::optional<TokenId> bos_id;
  std::vector<TokenId> eos_ids;
  bool strips_leading_space = false;
};

// Drops ids that lie outside `entries` from eos_ids, and doubles.
std::unique_ptr<Tokenizer> ComposeTokenizer(TokenizerParts parts);

}  // namespace bellwether
