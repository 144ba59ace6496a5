#pragma once

#include "nlohmann/json.hpp"

namespace bellwether {

// The member of a JSON object; null when it is absent or `object` is none. Without a copy and without
// exceptions.
inline const nlohmann::json& JsonMember(const nlohmann::json& object, const char* key) {
  static const nlohmann::json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

}  // namespace bellwether
