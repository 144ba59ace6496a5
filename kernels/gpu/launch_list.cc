#include <algorithm>

#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

bool Same(const LaunchList::Launch& a, const LaunchList::Launch& b) {
  return a.kernel == b.kernel && a.grid_x == b.grid_x && a.grid_y == b.grid_y && a.grid_z == b.grid_z &&
         a.threads == b.threads && a.shared_bytes == b.shared_bytes && a.args_at == b.args_at;
}

}  // namespace

bool operator==(const LaunchList& a, const LaunchList& b) {
  return a.args_ == b.args_ &&
         std::equal(a.launches_.begin(), a.launches_.end(), b.launches_.begin(), b.launches_.end(), Same);
}

// FNV-1a over words: launches and arguments alike are small numbers and pointers.
uint64_t LaunchList::Hash() const {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&hash](uint64_t word) { hash = (hash ^ word) * 0x100000001b3u ^ hash >> 29; };
  for (const Launch& launch : launches_) {
    mix(static_cast<uint64_t>(launch.kernel) << 32 | static_cast<uint32_t>(launch.grid_x));
    mix(static_cast<uint64_t>(launch.grid_y) << 32 | static_cast<uint32_t>(launch.grid_z));
    mix(static_cast<uint64_t>(launch.threads) << 32 | static_cast<uint32_t>(launch.shared_bytes));
  }
  for (size_t at = 0; at + 8 <= args_.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, args_.data() + at, sizeof(word));
    mix(word);
  }
  return hash;
}

}  // namespace bellwether::gpu
