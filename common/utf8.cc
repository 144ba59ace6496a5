#include "common/utf8.h"

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// Length of the character that starts with `lead`, and the range its second byte must lie in (table 3-7 of
// the Unicode standard); length 0 for a byte that starts none.
struct LeadByte {
  size_t length;
  uint8_t second_min;
  uint8_t second_max;
};

LeadByte Classify(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step ReadUtf8(std::string_view bytes) {
  using Kind = Utf8Step::Kind;
  if (bytes.empty()) return {Kind::kIncomplete, 0};
  const uint8_t lead = static_cast<uint8_t>(bytes[0]);
  const LeadByte shape = Classify(lead);
  if (shape.length == 0) return {Kind::kBroken, 1};
  if (shape.length == 1) return {Kind::kCharacter, 1, lead};
  uint32_t code_point = lead & (0x7Fu >> shape.length);
  for (size_t i = 1; i < shape.length; ++i) {
    if (i == bytes.size()) return {Kind::kIncomplete, i};
    const uint8_t byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? shape.second_min : 0x80;
    const uint8_t high = i == 1 ? shape.second_max : 0xBF;
    if (byte < low || byte > high) return {Kind::kBroken, i};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {Kind::kCharacter, shape.length, code_point};
}

void AppendUtf8(uint32_t c, std::string* out) {
  const auto tail = [&](int shift) { out->push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F))); };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (c >> 6)));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (c >> 12)));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xF0 | (c >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = ReadUtf8(bytes.substr(at));
    if (step.kind != Utf8Step::Kind::kCharacter) break;
    at += step.length;
  }
  return at;
}

absl::Status CheckUtf8(const std::string& what, std::string_view text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8 at byte ", valid));
}

std::string_view WithoutByteOrderMark(std::string_view text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  return text;
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = ReadUtf8(bytes);
    out.append(step.kind == Utf8Step::Kind::kCharacter ? bytes.substr(0, step.length)
                                                       : kReplacementCharacter);
    bytes.remove_prefix(step.length);
  }
  return out;
}

std::string ReplaceEachBrokenByte(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = ReadUtf8(bytes);
    const bool good = step.kind == Utf8Step::Kind::kCharacter;
    out.append(good ? bytes.substr(0, step.length) : kReplacementCharacter);
    bytes.remove_prefix(good ? step.length : 1);
  }
  return out;
}

bool IsWhitespace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace bellwether
