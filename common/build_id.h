#pragma once

#include <string>

namespace bellwether {

// Names what this program was built from: release, compiler, flags and sources of everything that decides
// bits or messages. Equal ids mean equal answers. Linked into the programs only (cmake/build_id.cmake makes
// it).
std::string BuildId();

// The first line of what --version prints.
inline std::string VersionLine(const std::string& program) { return program + " " + BuildId() + "\n"; }

}  // namespace bellwether
