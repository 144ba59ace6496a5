#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/utf8.h"
#include "model/tokenizer/incremental_detokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {
namespace {

std::unique_ptr<Tokenizer> MustMake(GgufVocabulary vocabulary) {
  auto tokenizer = MakeTokenizerFromGguf(std::move(vocabulary));
  BW_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

// All bytes as GPT-2 spells them, a few merges, two special tokens.
GgufVocabulary ByteLevel(const std::string& pre) {
  GgufVocabulary v{.model = "gpt2", .pre = pre};
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    AppendUtf8(printable ? byte : next++, &v.tokens.emplace_back());
  }
  v.merges = {"a b", "b a", "ab ab", "Ġ Ġ", "ĠĠ ĠĠ", "ä ½"};
  for (const char* joined : {"ab", "ba", "abab", "ĠĠ", "ĠĠĠĠ", "ä½", "<s>", "</s>"})
    v.tokens.push_back(joined);
  v.token_types.assign(v.tokens.size(), 1);
  v.token_types[v.tokens.size() - 1] = v.token_types[v.tokens.size() - 2] = 3;
  v.add_bos = false;
  return v;
}

GgufVocabulary Sentencepiece() {
  GgufVocabulary v{.model = "llama", .tokens = {"<unk>", "<s>", "</s>"}, .token_types = {2, 3, 3}};
  for (int byte = 0; byte < 256; ++byte) {
    v.tokens.push_back(absl::StrFormat("<0x%02X>", byte));
    v.token_types.push_back(6);
  }
  for (const char* piece : {"▁", "a", "b", "ab", "ba", "▁a", "▁▁", "▁▁▁▁", "你", "aab"}) {
    v.tokens.push_back(piece);
    v.token_types.push_back(1);
  }
  for (size_t i = 0; i < v.tokens.size(); ++i) v.scores.push_back(-static_cast<float>(i % 4));
  v.add_bos = false;
  return v;
}

std::string Bytes(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::string bytes;
  for (const TokenId id : ids) bytes += tokenizer.TokenBytes(id);
  return bytes;
}

std::string OneByOne(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  IncrementalDetokenizer detokenizer(&tokenizer, {.at_text_start = true});
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = detokenizer.Push(id);
    BW_CHECK(ValidUtf8Prefix(piece) == piece.size());
    text += piece;
  }
  return text + detokenizer.Flush();
}

}  // namespace
}  // namespace bellwether

// Any text: bytes survive encoding, and decoding one by one gives what decoding the whole gives.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bellwether;
  static const auto* const byte_level = [] {
    auto* tokenizers = new std::vector<std::unique_ptr<Tokenizer>>;
    for (const char* pre : {"gpt-2", "llama-bpe", "smollm", "qwen2", "bloom", "default"}) {
      tokenizers->push_back(MustMake(ByteLevel(pre)));
    }
    return tokenizers;
  }();
  static const auto* const sentencepiece = new std::unique_ptr<Tokenizer>(MustMake(Sentencepiece()));
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const auto& tokenizer : *byte_level) {
    const auto ids = tokenizer->Encode(text, {});
    BW_CHECK(ids.ok());
    BW_CHECK(Bytes(*tokenizer, *ids) == text);
    BW_CHECK(OneByOne(*tokenizer, *ids) == ToValidUtf8(text));
    BW_CHECK(tokenizer->Encode(text, {.parse_special_tokens = true}).ok());
  }
  const auto ids = (*sentencepiece)->Encode(text, {});
  BW_CHECK(ids.ok());
  // The space mark of a text is not told from a space.
  if (ValidUtf8Prefix(text) == text.size() && text.find("\xE2\x96\x81") == std::string::npos) {
    BW_CHECK(OneByOne(**sentencepiece, *ids) == text);
  }
  return 0;
}
