#pragma once

#include <string>
#include <string_view>

namespace bellwether {

// Unicode normalisation form C of a text (version 14 of the tables, as far as Python 3.11 has them). Bytes
// that are no UTF-8 pass unchanged, and nothing composes across them.
std::string ToNfc(std::string_view text);

}  // namespace bellwether
