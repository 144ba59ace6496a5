#include "model/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "common/utf8.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {
namespace {

// A byte of a word, as far as ASCII tells; bytes of other characters count as letters.
bool IsWordByte(char c) {
  const unsigned char byte = static_cast<unsigned char>(c);
  return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
         (byte >= 'a' && byte <= 'z') || byte == '_';
}

// Bytes of the whitespace character that ends at the end of `text`, 0 when none does.
size_t TrailingWhitespace(std::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const Utf8Step step = ReadUtf8(text.substr(text.size() - length));
    if (step.kind == Utf8Step::Kind::kCharacter && step.length == length) {
      return IsWhitespace(step.code_point) ? length : 0;
    }
  }
  return 0;
}

}  // namespace

void AddedTokens::Add(AddedToken token) {
  words_.Add(token.text, token.id);
  const bool strips = token.lstrip || token.rstrip;
  token_bytes_max_ = std::max(token_bytes_max_, strips ? kAnyBytes : token.text.size());
  by_id_.emplace(token.id, std::move(token));
}

bool AddedTokens::StandsAlone(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !IsWordByte(text[begin - 1])) && (end == text.size() || !IsWordByte(text[end]));
}

AddedTokens::Found AddedTokens::WithWhitespace(std::string_view text, size_t from, Found found) const {
  const AddedToken& token = by_id_.at(found.id);
  while (token.lstrip && found.begin > from) {
    const size_t length = TrailingWhitespace(text.substr(from, found.begin - from));
    if (length == 0) break;
    found.begin -= length;
  }
  while (token.rstrip) {
    const Utf8Step step = ReadUtf8(text.substr(found.end));
    if (step.kind != Utf8Step::Kind::kCharacter || !IsWhitespace(step.code_point)) break;
    found.end += step.length;
  }
  return found;
}

}  // namespace bellwether
