#include "worker/sampling/sampler.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "absl/status/status.h"
#include "common/check.h"
#include "common/random.h"
#include "common/status.h"
#include "worker/sampling/exp_nonpositive.h"
#include "worker/sampling/log_softmax.h"
#include "worker/sampling/processors.h"

namespace bellwether {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The processed logits: the raw ones where nothing changes them, else scratch.scores.
absl::Span<const float> ProcessedScores(const SamplingInput& input, SamplingScratch& scratch) {
  if (HasNoProcessors(input)) return input.logits;
  ApplyProcessors(input, scratch);
  return scratch.scores;
}

// The id of the largest score, the lowest among equals.
absl::StatusOr<TokenId> Best(absl::Span<const float> scores) {
  TokenId best = -1;
  float best_score = -kInfinity;
  bool broken = false;
  for (size_t i = 0; i < scores.size(); ++i) {
    broken |= !(scores[i] < kInfinity);
    if (scores[i] > best_score) {
      best = static_cast<TokenId>(i);
      best_score = scores[i];
    }
  }
  if (broken) return absl::DataLossError("a logit is NaN or infinite");
  if (best < 0) return absl::InternalError("every token is masked: none is left to choose");
  return best;
}

// The k-th largest score, 1 <= k <= size.
float KthLargest(absl::Span<const float> scores, size_t k, std::vector<float>& heap) {
  // The k largest so far with the least of them in front: few scores ever get in when k is small.
  heap.assign(scores.begin(), scores.begin() + k);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  for (float score : scores.subspan(k)) {
    if (score <= heap.front()) continue;
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.back() = score;
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  return heap.front();
}

void CollectCandidates(absl::Span<const float> scores, float threshold, std::vector<Candidate>& candidates) {
  candidates.clear();
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] >= threshold && scores[i] > -kInfinity) {
      candidates.push_back({static_cast<TokenId>(i), scores[i], 0.0f});
    }
  }
}

void ComputeWeights(float best_score, double temperature, std::vector<Candidate>& candidates) {
  // A temperature too small for a float leaves weight to the largest scores alone.
  const float divisor = std::max(static_cast<float>(temperature), std::numeric_limits<float>::min());
  for (Candidate& candidate : candidates) {
    candidate.weight = ExpNonPositive((candidate.score - best_score) / divisor);
  }
}

// In the order of the vector.
double TotalWeight(const std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

// Hugging Face: sort ascending, remove while the cumulative probability is <= 1 - top_p, keep the largest.
// Seen from the other end, a token stays if those before it sum to less than top_p. Only as much as stays is
// sorted.
void KeepNucleus(double top_p, std::vector<Candidate>& candidates) {
  const double total = TotalWeight(candidates);
  // All tokens of at most this weight together have at most 1 - top_p: none of them can stay, unless it is
  // the best.
  const double negligible = (1.0 - top_p) * total / static_cast<double>(candidates.size());
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight <= negligible && c.weight < 1.0f; });

  auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.token < b.token;
  };
  double before = 0.0;
  size_t kept = 0;
  bool full = false;
  for (size_t sorted = 0, chunk = 128; sorted < candidates.size() && !full; chunk *= 4) {
    const size_t end = std::min(candidates.size(), sorted + chunk);
    const auto first = candidates.begin() + sorted;
    const auto last = candidates.begin() + end;
    if (end < candidates.size()) std::nth_element(first, last, candidates.end(), better);
    std::sort(first, last, better);
    for (; kept < end; ++kept) {
      full = kept > 0 && before >= top_p * total;
      if (full) break;
      before += candidates[kept].weight;
    }
    sorted = end;
  }
  candidates.resize(kept);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

// What top_p and min_p leave of what top_k did.
void FilterByWeight(const SamplingOptions& options, float best_score, std::vector<Candidate>& candidates) {
  ComputeWeights(best_score, options.temperature, candidates);
  if (options.top_p < 1.0) KeepNucleus(options.top_p, candidates);
  const float least = static_cast<float>(options.min_p);  // the largest weight is 1
  std::erase_if(candidates, [least](const Candidate& c) { return c.weight <= 0.0f || c.weight < least; });
}

// scratch.candidates = what may be drawn, in ascending id order, every weight above 0.
absl::Status FilterCandidates(const SamplingInput& input, SamplingScratch& scratch) {
  const SamplingOptions& options = input.options;
  BW_CHECK(options.temperature > 0.0);
  const absl::Span<const float> scores = ProcessedScores(input, scratch);
  BW_ASSIGN_OR_RETURN(const TokenId best, Best(scores));

  std::vector<Candidate>& candidates = scratch.candidates;
  const bool limited = options.top_k > 0 && static_cast<size_t>(options.top_k) < scores.size();
  const float threshold = limited ? KthLargest(scores, options.top_k, scratch.largest) : -kInfinity;
  CollectCandidates(scores, threshold, candidates);
  FilterByWeight(options, scores[best], candidates);
  return absl::OkStatus();
}

TokenId Draw(const std::vector<Candidate>& candidates, double uniform) {
  const double target = uniform * TotalWeight(candidates);
  double cumulative = 0.0;
  for (const Candidate& candidate : candidates) {
    cumulative += candidate.weight;
    if (cumulative > target) return candidate.token;
  }
  return candidates.back().token;
}

TokenId DrawAtPosition(const SamplingInput& input, const std::vector<Candidate>& candidates) {
  const auto position = static_cast<int64_t>(input.tokens.size());
  return Draw(candidates, UniformFromCounter(input.options.seed, input.choice, position));
}

absl::StatusOr<TokenId> Choose(const SamplingInput& input, SamplingScratch& scratch) {
  if (input.options.temperature == 0.0) return Best(ProcessedScores(input, scratch));
  BW_RETURN_IF_ERROR(FilterCandidates(input, scratch));
  return DrawAtPosition(input, scratch.candidates);
}

}  // namespace

TokenId DrawFromCandidates(const SamplingInput& input, SamplingScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  float best_score = -kInfinity;
  for (const Candidate& candidate : candidates) best_score = std::max(best_score, candidate.score);
  FilterByWeight(input.options, best_score, candidates);
  return DrawAtPosition(input, candidates);
}

absl::StatusOr<SampledToken> Sample(const SamplingInput& input, SamplingScratch& scratch) {
  BW_CHECK(!input.logits.empty());
  SampledToken sampled;
  BW_ASSIGN_OR_RETURN(sampled.token, Choose(input, scratch));
  if (input.options.logprobs >= 0) {
    const double log_sum_exp = LogSumExp(input.logits);
    sampled.logprob = static_cast<float>(input.logits[sampled.token] - log_sum_exp);
    sampled.top = TopLogprobs(input.logits, log_sum_exp, input.options.logprobs);
  }
  return sampled;
}

absl::StatusOr<std::vector<TokenProbability>> FilteredDistribution(const SamplingInput& input,
                                                                   SamplingScratch& scratch) {
  BW_CHECK(!input.logits.empty());
  BW_RETURN_IF_ERROR(FilterCandidates(input, scratch));
  const double total = TotalWeight(scratch.candidates);
  std::vector<TokenProbability> distribution;
  for (const Candidate& candidate : scratch.candidates) {
    distribution.push_back({candidate.token, candidate.weight / total});
  }
  return distribution;
}

}  // namespace bellwether
