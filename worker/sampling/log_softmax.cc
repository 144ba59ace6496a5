#include "worker/sampling/log_softmax.h"

#include <algorithm>
#include <limits>

#include "common/check.h"
#include "common/exact_math.h"
#include "worker/sampling/exp_nonpositive.h"

namespace bellwether {
namespace {

constexpr int kLanes = 16;

// Lane i sums the elements i, i + 16, ...; the order of all additions is fixed by this code, not by the
// compiler.
double SumOfExp(absl::Span<const float> values, float max) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    float exps[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) exps[lane] = ExpNonPositive(values[i + lane] - max);
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += exps[lane];
  }
  for (int lane = 0; i < values.size(); ++i, ++lane) lanes[lane] += ExpNonPositive(values[i] - max);
  double sum = 0.0;
  for (double lane : lanes) sum += lane;
  return sum;
}

float MaxOf(absl::Span<const float> values) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = values[0];
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = std::max(lanes[lane], values[i + lane]);
  }
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

ExpSum ExpSumOfTile(absl::Span<const float> tile) {
  BW_CHECK(!tile.empty() && tile.size() <= kLogSumExpTile);
  const float max = MaxOf(tile);
  if (max == -std::numeric_limits<float>::infinity()) return {max, 0.0};
  return {max, SumOfExp(tile, max)};
}

ExpSum MergeExpSums(const ExpSum& low, const ExpSum& high) {
  if (low.scaled_sum == 0.0) return high;
  if (high.scaled_sum == 0.0) return low;
  const float max = std::max(low.max, high.max);
  auto scaled = [max](const ExpSum& part) {
    return part.scaled_sum * Exp(static_cast<double>(part.max) - static_cast<double>(max));
  };
  return {max, scaled(low) + scaled(high)};
}

double LogSumExpOf(const ExpSum& sum) { return sum.max + Log(sum.scaled_sum); }

double LogSumExp(absl::Span<const float> logits) {
  BW_CHECK(!logits.empty());
  ExpSum sum = ExpSumOfTile(logits.subspan(0, kLogSumExpTile));
  for (size_t start = kLogSumExpTile; start < logits.size(); start += kLogSumExpTile) {
    sum = MergeExpSums(sum, ExpSumOfTile(logits.subspan(start, kLogSumExpTile)));
  }
  return LogSumExpOf(sum);
}

float LogSoftmaxAt(absl::Span<const float> logits, TokenId token) {
  BW_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  return static_cast<float>(logits[token] - LogSumExp(logits));
}

std::vector<TokenLogprob> TopLogprobs(absl::Span<const float> logits, double log_sum_exp, int n) {
  auto better = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  // A heap of the best so far with the worst of them in front; raw logits until the end.
  std::vector<TokenLogprob> top;
  const size_t limit = std::min<size_t>(std::max(n, 0), logits.size());
  for (size_t id = 0; id < logits.size() && limit > 0; ++id) {
    const TokenLogprob entry = {static_cast<TokenId>(id), logits[id]};
    if (top.size() == limit) {
      if (entry.logprob <= top.front().logprob) continue;  // a later equal one has the higher id
      std::pop_heap(top.begin(), top.end(), better);
      top.pop_back();
    }
    top.push_back(entry);
    std::push_heap(top.begin(), top.end(), better);
  }
  std::sort_heap(top.begin(), top.end(), better);
  for (TokenLogprob& entry : top) entry.logprob = static_cast<float>(entry.logprob - log_sum_exp);
  return top;
}

}  // namespace bellwether
