#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/pre_tokenizer.h"

namespace bellwether {

// GPT-2's pattern, which ByteLevel pre-tokenizers use unless told not to.
extern const char* const kGpt2Pattern;

// What a GGUF file's tokenizer.ggml.pre stands for.
struct KnownPreTokenizer {
  std::vector<const char*> patterns;  // applied in order, matches isolated
  bool ignore_merges = false;
  bool add_bos = false;  // unless the file says otherwise
};
// UNIMPLEMENTED for a name that is not known; the message lists those that are.
absl::StatusOr<KnownPreTokenizer> FindKnownPreTokenizer(std::string_view name);

}  // namespace bellwether
