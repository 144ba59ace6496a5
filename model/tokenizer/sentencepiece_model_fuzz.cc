#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "common/check.h"
#include "model/tokenizer/scored_bpe.h"
#include "model/tokenizer/sentencepiece_model.h"

// Any bytes as a tokenizer.model: refused, or a tokenizer that encodes and decodes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  auto model = bellwether::ParseSentencepieceModel(file);
  if (!model.ok()) return 0;
  auto parts = bellwether::MakeScoredBpe(*std::move(model));
  if (!parts.ok()) return 0;
  const auto tokenizer = bellwether::ComposeTokenizer(*std::move(parts));
  const auto ids = tokenizer->Encode(file.substr(0, 512), {.parse_special_tokens = true});
  BW_CHECK(ids.ok());
  tokenizer->Decode(*ids, /*skip_special=*/false);
  return 0;
}
