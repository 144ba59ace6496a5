#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/json.h"
#include "model/tokenizer/composed_tokenizer.h"
#include "model/tokenizer/ranked_bpe.h"
#include "model/tokenizer/text_normalizer.h"

namespace bellwether {

// The components of a tokenizer.json around its model. Each takes the component's JSON, null included; a type
// that is not supported is UNIMPLEMENTED by name.

absl::Status ReadNormalizer(const Json& component, TextNormalizer* normalizer);

// Fills pre_tokenizer and byte_level.
absl::Status ReadPreTokenizer(const Json& component, RankedBpeSpec* spec);

struct DecoderRule {
  bool byte_level = false;
  bool byte_fallback = false;  // "<0x0A>" stands for a byte
  TextNormalizer replace;      // applied to every other piece
  bool strips_leading_space = false;
};
absl::StatusOr<DecoderRule> ReadDecoder(const Json& component);

// Fills prefix and suffix.
absl::Status ReadPostProcessor(const Json& component, TokenizerParts* parts);

}  // namespace bellwether
