#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/check.h"
#include "common/json.h"

// Any bytes: as a text, refused or a value that is written and read again as it is; as names and values,
// which need not be UTF-8, a text that can be read.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto value = bellwether::ParseJson(bytes); value.ok()) {
    const std::string text = bellwether::WriteJson(*value, /*indent=*/static_cast<int>(size % 3));
    const auto again = bellwether::ParseJson(text);
    BW_CHECK(again.ok());
    BW_CHECK(bellwether::WriteJson(*again) == bellwether::WriteJson(*value));
  }
  const std::string_view name = bytes.substr(0, size / 2);
  bellwether::Json json;
  json[name] = bytes.substr(size / 2);
  BW_CHECK(bellwether::ParseJson(bellwether::WriteJson(json)).ok());
  return 0;
}
