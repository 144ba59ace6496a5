#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace bellwether {

// A piece of a text that is scored in one go: what stands before `scored_begin` is context alone.
struct ScoreWindow {
  int64_t begin = 0, end = 0;  // tokens of the text
  int64_t scored_begin = 0;    // the first token whose log-probability counts; the text's own first has none
  friend bool operator==(const ScoreWindow&, const ScoreWindow&) = default;
};

// The sliding windows of "Perplexity of fixed-length models"
// (https://huggingface.co/docs/transformers/perplexity): each begins `stride` tokens after the last, is at
// most `window` long, and counts what those before have not counted. No token is scored twice. 1 <= stride <=
// window; window >= 2.
inline std::vector<ScoreWindow> ScoreWindows(int64_t tokens, int64_t window, int64_t stride) {
  std::vector<ScoreWindow> windows;
  int64_t scored = 1;
  for (int64_t begin = 0; scored < tokens; begin += stride) {
    const int64_t end = std::min(begin + window, tokens);
    // Nothing stands before the first token of a window: where windows only touch, it goes unscored.
    const ScoreWindow next = {begin, end, std::max(scored, begin + 1)};
    if (next.scored_begin < end) windows.push_back(next);
    scored = std::max(scored, end);
  }
  return windows;
}

}  // namespace bellwether
