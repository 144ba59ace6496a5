#pragma once

#include <string>

namespace bellwether {

// Names what this program was built from: release, compiler, flags and sources of everything that decides
// bits or messages. Equal ids mean equal answers. Linked into the programs only (cmake/build_id.cmake makes
// it).
std::string BuildId();

}  // namespace bellwether
