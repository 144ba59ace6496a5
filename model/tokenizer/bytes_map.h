#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace bellwether {

// Maps keyed by byte strings that can be searched with a std::string_view. (absl's own string hash takes
// absl::string_view, which is another type in Debian's build.)
struct BytesHash {
  using is_transparent = void;
  size_t operator()(std::string_view bytes) const { return std::hash<std::string_view>{}(bytes); }
};

template <typename Value>
using BytesMap = absl::flat_hash_map<std::string, Value, BytesHash, std::equal_to<>>;
// The keys' bytes live elsewhere and must not move.
template <typename Value>
using BytesViewMap = absl::flat_hash_map<std::string_view, Value, BytesHash, std::equal_to<>>;

}  // namespace bellwether
