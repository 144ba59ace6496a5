#include "cli/decode_rate.h"

#include <algorithm>
#include <cstdint>

namespace bellwether {

double DecodeRate(const std::vector<std::vector<absl::Duration>>& streams) {
  absl::Duration begin = -absl::InfiniteDuration(), end = absl::InfiniteDuration();
  for (const std::vector<absl::Duration>& tokens : streams) {
    if (tokens.empty()) return 0;
    begin = std::max(begin, tokens.front());
    end = std::min(end, tokens.back());
  }
  if (end <= begin) return 0;
  int64_t count = 0;
  for (const std::vector<absl::Duration>& tokens : streams) {
    count += std::count_if(tokens.begin(), tokens.end(),
                           [&](absl::Duration at) { return begin < at && at <= end; });
  }
  return static_cast<double>(count) / absl::ToDoubleSeconds(end - begin);
}

}  // namespace bellwether
