#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "model/tokenizer/composed_tokenizer.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace bellwether {

// Entries, encoder, BOS/EOS ids and space rule of a sentencepiece BPE model. The caller adds what the
// checkpoint says beside it: prefix, suffix, further tokens. Control pieces are recognised where special
// tokens are. Errors as ValidateSentencepieceModel's.
absl::StatusOr<TokenizerParts> MakeScoredBpe(SentencepieceModel model);

}  // namespace bellwether
