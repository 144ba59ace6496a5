#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer.h"

// What a GGUF file says of its tokenizer, for whoever makes a tokenizer or files of it.

namespace bellwether {

// Checks sizes, ids and kind, and fills in the defaults of the kind: add_bos and add_eos, of "llama" also the
// unknown token, BOS and EOS. Errors as MakeTokenizerFromGguf's.
absl::Status SettleVocabulary(GgufVocabulary* vocabulary);

// Of a settled one:
SentencepieceModel::PieceType TypeOf(const GgufVocabulary& vocabulary, size_t id);
// Of the kind "llama".
SentencepieceModel SentencepieceOf(const GgufVocabulary& vocabulary);

}  // namespace bellwether
