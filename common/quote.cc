#include "common/quote.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

constexpr size_t kQuotedBytesMax = 64;

}  // namespace

std::string Quoted(std::string_view text) {
  const std::string_view shown = CutText(text, kQuotedBytesMax);
  const std::string escaped = absl::CHexEscape(absl::string_view(shown.data(), shown.size()));
  if (shown.size() == text.size()) return absl::StrCat("\"", escaped, "\"");
  return absl::StrCat("\"", escaped, "...\" (", text.size(), " bytes)");
}

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    const std::string_view bytes = text.substr(0, step.length);
    if (step.kind == Utf8Step::Kind::kCharacter) {
      out.append(bytes);
    } else {
      for (const char byte : bytes)
        absl::StrAppend(&out, "\\x", absl::Hex(static_cast<unsigned char>(byte), absl::kZeroPad2));
    }
    text.remove_prefix(step.length);
  }
  return out;
}

bool IsPlainWord(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c < 127; });
}

std::string_view CutText(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  size_t end = bytes_max;
  while (end > 0 && bytes_max - end < 3 && continues(text[end])) --end;
  return text.substr(0, end);
}

}  // namespace bellwether
