#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bellwether {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the start of a byte string.
struct Utf8Step {
  enum class Kind {
    kCharacter,   // a whole character: `code_point` is set
    kBroken,      // `length` bytes that cannot be part of any character
    kIncomplete,  // all that is left is the start of a character
  };
  Kind kind;
  size_t length;  // bytes; 0 only for an empty string (kIncomplete)
  uint32_t code_point = 0;
};

// Reads one step. Broken bytes are grouped as the Unicode standard recommends ("maximal subparts", as
// Python's and Rust's lossy decoders do), so that one U+FFFD stands for each step.
Utf8Step ReadUtf8(std::string_view bytes);

void AppendUtf8(uint32_t code_point, std::string* out);

// Length of the longest prefix that is valid UTF-8, in bytes.
size_t ValidUtf8Prefix(std::string_view bytes);

// InvalidArgument, saying what and where, unless `text` is valid UTF-8.
absl::Status CheckUtf8(const std::string& what, std::string_view text);

// Without the byte-order mark that some editors write before a text.
std::string_view WithoutByteOrderMark(std::string_view text);

// Broken bytes, and an unfinished character at the end, become U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

// Every byte that is not part of a character becomes a U+FFFD of its own, as sentencepiece has it.
std::string ReplaceEachBrokenByte(std::string_view bytes);

// Unicode's White_Space property.
bool IsWhitespace(uint32_t code_point);

}  // namespace bellwether
