#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {

// FNV-1a over words: launches and arguments alike are small numbers and pointers.
uint64_t LaunchList::Hash() const {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&hash](uint64_t word) { hash = ((hash ^ word) * 0x100000001b3u) ^ (hash >> 29); };
  for (const Launch& launch : launches_) {
    const Shape& shape = launch.shape;
    mix(static_cast<uint64_t>(launch.kernel) << 32 | static_cast<uint32_t>(shape.grid_x));
    mix(static_cast<uint64_t>(shape.grid_y) << 32 | static_cast<uint32_t>(shape.grid_z));
    mix(static_cast<uint64_t>(shape.threads) << 32 | static_cast<uint32_t>(shape.shared_bytes));
  }
  for (size_t at = 0; at + 8 <= args_.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, args_.data() + at, sizeof(word));
    mix(word);
  }
  return hash;
}

}  // namespace bellwether::gpu
