#pragma once

#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"

namespace bellwether {

// Sums over the vocabulary run in tiles of this many ids, counted from id 0, and tiles are merged in
// ascending order: the result does not depend on who computed which tile.
inline constexpr int kLogSumExpTile = 4096;

// Stands for sum = e^max * scaled_sum.
struct ExpSum {
  float max;
  double scaled_sum;
};

// Of one tile: 1 to kLogSumExpTile logits.
ExpSum ExpSumOfTile(absl::Span<const float> tile);

// Of two neighbours, the lower ids first.
ExpSum MergeExpSums(const ExpSum& low, const ExpSum& high);

// ln(sum of e^logit) of what was summed.
double LogSumExpOf(const ExpSum& sum);

// ln(sum of e^logit) over logits [vocabulary rows], at least one, none NaN.
double LogSumExp(absl::Span<const float> logits);

// Natural log-probability of `token` under softmax(logits); `token` is an index into logits.
float LogSoftmaxAt(absl::Span<const float> logits, TokenId token);

// The n most likely tokens, best first, equal ones by ascending id. n is cut to the number of logits.
// log_sum_exp is that of the same logits.
std::vector<TokenLogprob> TopLogprobs(absl::Span<const float> logits, double log_sum_exp, int n);

}  // namespace bellwether
