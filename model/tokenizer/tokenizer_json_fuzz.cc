#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "model/tokenizer/tokenizer_json.h"

// Any bytes as a tokenizer.json: refused, or a tokenizer that encodes and decodes. (Encoding may fail: a
// pattern may cost too much.)
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  auto parts = bellwether::ParseTokenizerJson(file);
  if (!parts.ok()) return 0;
  const auto tokenizer = bellwether::ComposeTokenizer(*std::move(parts));
  const auto ids = tokenizer->Encode(file.substr(0, 512), {.parse_special_tokens = true});
  if (ids.ok()) tokenizer->Decode(*ids, /*skip_special=*/false);
  return 0;
}
