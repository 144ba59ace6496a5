#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/strings/ascii.h"
#include "common/check.h"
#include "http/message.h"

// Any bytes as a request's target: refused, or a path that begins with '/' and holds no control character.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto target = bellwether::ParseTarget(text);
  if (!target.ok()) return 0;
  BW_CHECK(target->path.starts_with('/'));
  BW_CHECK(
      std::none_of(target->path.begin(), target->path.end(), [](char c) { return absl::ascii_iscntrl(c); }));
  BW_CHECK(target->path.size() + target->query.size() <= std::max<size_t>(size, 1));
  return 0;
}
