#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bellwether {

// GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written: "Ġthe" is
// " the". nullopt when `piece` has a character that stands for no byte.
std::optional<std::string> BytesOfPiece(std::string_view piece);

}  // namespace bellwether
