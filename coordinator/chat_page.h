#pragma once

#include <string_view>

namespace bellwether {

// The page at / that chats with the model: chat_page.html, which is compiled in (CMakeLists.txt).
std::string_view ChatPage();

}  // namespace bellwether
