#include "worker/sampling/processors.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace bellwether {
namespace {

absl::Span<const TokenId> GeneratedTokens(const SamplingInput& input) {
  BW_CHECK(input.prompt_length >= 0 && static_cast<size_t>(input.prompt_length) <= input.tokens.size());
  return input.tokens.subspan(input.prompt_length);
}

bool MasksEndingTokens(const SamplingInput& input) {
  return !input.options.ending_tokens.empty() &&
         GeneratedTokens(input).size() < static_cast<size_t>(std::max(input.options.min_tokens, 0));
}

// Prompts may hold ids that have no logit: the tokenizer can know more ids than the embedding has rows.
bool HasLogit(TokenId token, const std::vector<float>& scores) {
  return token >= 0 && static_cast<size_t>(token) < scores.size();
}

void PenalizeRepetition(const SamplingInput& input, SamplingScratch& scratch) {
  // Extreme penalties are allowed, but what they make of a finite logit stays finite: an infinite one means
  // that the weights are broken, and ends the request.
  constexpr float kLargest = std::numeric_limits<float>::max();
  const auto penalty = static_cast<float>(
      std::clamp<double>(input.options.repetition_penalty, std::numeric_limits<float>::min(), kLargest));
  scratch.seen.assign(scratch.scores.size(), 0);
  for (TokenId token : input.tokens) {
    if (!HasLogit(token, scratch.scores) || scratch.seen[token] != 0) continue;
    scratch.seen[token] = 1;
    float& score = scratch.scores[token];
    if (score > kLargest || score < -kLargest) continue;
    score = std::clamp(score < 0.0f ? score * penalty : score / penalty, -kLargest, kLargest);
  }
}

void PenalizeGenerated(const SamplingInput& input, SamplingScratch& scratch) {
  const absl::Span<const TokenId> generated = GeneratedTokens(input);
  scratch.generated.assign(generated.begin(), generated.end());
  std::sort(scratch.generated.begin(), scratch.generated.end());
  for (auto it = scratch.generated.begin(); it != scratch.generated.end();) {
    const auto next = std::upper_bound(it, scratch.generated.end(), *it);
    const double count = static_cast<double>(next - it);
    if (HasLogit(*it, scratch.scores)) {
      scratch.scores[*it] -=
          static_cast<float>(input.options.presence_penalty + input.options.frequency_penalty * count);
    }
    it = next;
  }
}

}  // namespace

bool HasNoProcessors(const SamplingInput& input) {
  const SamplingOptions& options = input.options;
  return options.repetition_penalty == 1.0 && options.presence_penalty == 0.0 &&
         options.frequency_penalty == 0.0 && options.logit_bias.empty() && !MasksEndingTokens(input);
}

void ApplyProcessors(const SamplingInput& input, SamplingScratch& scratch) {
  const SamplingOptions& options = input.options;
  scratch.scores.assign(input.logits.begin(), input.logits.end());
  if (options.repetition_penalty != 1.0) PenalizeRepetition(input, scratch);
  if (MasksEndingTokens(input)) {
    for (TokenId token : options.ending_tokens) {
      if (HasLogit(token, scratch.scores)) scratch.scores[token] = -std::numeric_limits<float>::infinity();
    }
  }
  if (options.presence_penalty != 0.0 || options.frequency_penalty != 0.0) PenalizeGenerated(input, scratch);
  for (const auto& [token, bias] : options.logit_bias) {
    if (HasLogit(token, scratch.scores)) scratch.scores[token] += bias;
  }
}

}  // namespace bellwether
