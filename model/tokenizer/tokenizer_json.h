#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/composed_tokenizer.h"

namespace bellwether {

// Of tokenizer.json and tokenizer.model; the largest tokenizer.json known has 33 MB.
inline constexpr size_t kTokenizerFileBytesMax = size_t{128} << 20;

// Reads a tokenizer.json: BPE, byte-level or in sentencepiece's manner. BOS and EOS ids are not in it (they
// are left empty), only what its post-processor puts around a text. UNIMPLEMENTED: a component of a type that
// is not supported, by name. INVALID_ARGUMENT: damaged, with what and where.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view file);

}  // namespace bellwether
