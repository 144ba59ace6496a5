#include "coordinator/layer_split.h"

#include <algorithm>
#include <compare>

namespace bellwether {
namespace {

struct Cost {
  double slowest = 0;  // seconds of the slowest stage
  double squares = 0;  // sum of squared seconds: least when the stages are equal
  auto operator<=>(const Cost&) const = default;
};

// The best way to give layers [0, end) to the first stages, and where the last of them begins.
struct Best {
  Cost cost;
  int begin = 0;
};

}  // namespace

std::optional<std::vector<Range>> SplitLayers(int layers, int stages, const StageTime& time) {
  if (stages < 1 || stages > layers) return std::nullopt;
  std::vector<std::vector<std::optional<Best>>> best(stages, std::vector<std::optional<Best>>(layers + 1));
  for (int stage = 0; stage < stages; ++stage) {
    for (int end = stage + 1; end <= layers; ++end) {
      std::optional<Best>& here = best[stage][end];
      for (int begin = stage == 0 ? 0 : stage; begin < (stage == 0 ? 1 : end); ++begin) {
        Cost before;
        if (stage > 0) {
          if (!best[stage - 1][begin]) continue;
          before = best[stage - 1][begin]->cost;
        }
        const std::optional<double> seconds = time(stage, {begin, end});
        if (!seconds) continue;
        const Cost cost = {std::max(before.slowest, *seconds), before.squares + *seconds * *seconds};
        if (!here || cost < here->cost) here = Best{cost, begin};
      }
    }
  }
  if (!best[stages - 1][layers]) return std::nullopt;
  std::vector<Range> split(stages);
  for (int stage = stages - 1, end = layers; stage >= 0; --stage) {
    split[stage] = {best[stage][end]->begin, end};
    end = best[stage][end]->begin;
  }
  return split;
}

}  // namespace bellwether
