#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// A file of a directory that LoadTokenizerFromDirectory reads.
struct TokenizerFile {
  std::string name;
  std::string text;
};

// The files of a tokenizer that does what MakeTokenizerFromGguf's does: tokenizer.model (sentencepiece's
// form, whose scores no list of merges says in full) or, of a byte-level one, tokenizer.json; and
// tokenizer_config.json, with the chat template unless it is empty. generation_config.json where a second
// token ends answers. Errors as MakeTokenizerFromGguf's; InvalidArgument for pieces that such files cannot
// hold: doubled, empty, not UTF-8.
absl::StatusOr<std::vector<TokenizerFile>> WriteVocabulary(GgufVocabulary vocabulary,
                                                           const std::string& chat_template);

}  // namespace bellwether
