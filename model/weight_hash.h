#pragma once

#include <cstdint>
#include <string>

namespace bellwether {

// What a worker has read of a tensor: the model id rests on samples, this on every value. Pieces are cut in
// the same places on every layout where a rank's part allows it, so that workers can be compared.
struct WeightHash {
  std::string what;   // "layer 3 query weight, rows 0-127"
  uint64_t hash = 0;  // of the values as they are stored (FastHash)
};
// Of one worker: twice what the largest models known have, and as many as a message surely holds. Of others
// the first ones are told.
inline constexpr int kWeightHashesMax = 1 << 16;
inline constexpr int kWeightHashNameBytesMax = 128;

}  // namespace bellwether
