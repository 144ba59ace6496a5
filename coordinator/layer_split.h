#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "model/layout.h"

namespace bellwether {

// Seconds that a stage takes for these layers (never empty); nothing if they do not fit there.
using StageTime = std::function<std::optional<double>(int stage, Range layers)>;

// Splits layers [0, layers) into consecutive, non-empty ranges, one a stage, such that the slowest stage is
// as fast as possible and, among such splits, the stages are as equal as possible. Nothing if no split fits.
// Cost: stages * layers^2 / 2 calls of `time`.
std::optional<std::vector<Range>> SplitLayers(int layers, int stages, const StageTime& time);

}  // namespace bellwether
