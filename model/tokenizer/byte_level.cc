#include "model/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "common/utf8.h"

namespace bellwether {
namespace {

// Printable Latin-1 bytes stand for themselves; the others, in order, are U+0100, U+0101, ...
constexpr bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<int16_t, 0x144> MakeByteOfCharacter() {
  std::array<int16_t, 0x144> table{};
  for (int16_t& byte : table) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte)
    table[IsPrintable(byte) ? byte : next++] = static_cast<int16_t>(byte);
  return table;
}
constexpr std::array<int16_t, 0x144> kByteOfCharacter = MakeByteOfCharacter();

}  // namespace

std::optional<std::string> BytesOfPiece(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Step step = ReadUtf8(piece);
    if (step.kind != Utf8Step::Kind::kCharacter || step.code_point >= kByteOfCharacter.size())
      return std::nullopt;
    const int16_t byte = kByteOfCharacter[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    piece.remove_prefix(step.length);
  }
  return bytes;
}

}  // namespace bellwether
