#include "model/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "common/check.h"
#include "common/utf8.h"
#include "model/regex.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {
namespace {

// As \w of Rust's regular expressions, by which Hugging Face's library looks: what is alphabetic, marks,
// decimal digits, connectors and joiners. The ranges are symbols that are alphabetic, such as circled
// letters.
constexpr std::string_view kWordCharacter =
    R"([\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169})"
    R"(\x{1F170}-\x{1F189}])";

// Broken bytes are of no word, as the U+FFFD that they are shown as.
bool IsOfWord(std::string_view character) {
  static const auto* const pattern = new absl::StatusOr<Regex>(Regex::Compile(kWordCharacter));
  BW_CHECK(pattern->ok());
  const auto match = Regex::Matches(**pattern, character).Next();
  return match.ok() && match->has_value();
}

// The character that `text` starts with; empty when it starts with none.
std::string_view FirstCharacter(std::string_view text) {
  const Utf8Step step = ReadUtf8(text);
  return text.substr(0, step.kind == Utf8Step::Kind::kCharacter ? step.length : 0);
}
// The one that it ends with.
std::string_view LastCharacter(std::string_view text) {
  for (size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    const std::string_view end = text.substr(text.size() - length);
    if (FirstCharacter(end).size() == length) return end;
  }
  return {};
}

bool IsSpace(std::string_view character) {
  return !character.empty() && IsWhitespace(ReadUtf8(character).code_point);
}

}  // namespace

void AddedTokens::Add(AddedToken token) {
  words_.Add(token.text, token.id);
  const bool strips = token.lstrip || token.rstrip;
  token_bytes_max_ = std::max(token_bytes_max_, strips ? kAnyBytes : token.text.size());
  by_id_.emplace(token.id, std::move(token));
}

bool AddedTokens::StandsAlone(std::string_view text, size_t begin, size_t end) {
  return !IsOfWord(LastCharacter(text.substr(0, begin))) && !IsOfWord(FirstCharacter(text.substr(end)));
}

AddedTokens::Found AddedTokens::WithWhitespace(std::string_view text, size_t done, Found found) const {
  const AddedToken& token = by_id_.at(found.id);
  while (token.lstrip && found.begin > done) {
    const std::string_view last = LastCharacter(text.substr(done, found.begin - done));
    if (!IsSpace(last)) break;
    found.begin -= last.size();
  }
  while (token.rstrip) {
    const std::string_view first = FirstCharacter(text.substr(found.end));
    if (!IsSpace(first)) break;
    found.end += first.size();
  }
  return found;
}

}  // namespace bellwether
