#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "common/random.h"

namespace bellwether {

// When requests of an open load are sent, counted from its begin: a Poisson process of `rate` requests a
// second, whose gaps are exponential. The same for the same seed.
inline std::vector<absl::Duration> PoissonArrivals(double rate, int64_t count, uint64_t seed) {
  std::vector<absl::Duration> arrivals;
  arrivals.reserve(count);
  double seconds = 0;
  for (int64_t i = 0; i < count; ++i) {
    arrivals.push_back(absl::Seconds(seconds));
    seconds -= std::log1p(-UniformFromCounter(seed, 0, i)) / rate;
  }
  return arrivals;
}

}  // namespace bellwether
