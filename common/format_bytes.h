#pragma once

#include <string>

#include "absl/strings/str_format.h"

namespace bellwether {

// For people: "1.5 GiB", "12.0 MiB", "17 B".
inline std::string FormatBytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, bytes, kUnits[unit]);
}

}  // namespace bellwether
