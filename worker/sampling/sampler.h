#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/sampling_options.h"
#include "common/step.h"

// Choosing the next token of one sequence. Everything here is a pure function of its input: no generator
// state, no clock, the same bits on every machine. Threads: any, each with its own SamplingScratch.
//
// The order is Hugging Face's: repetition penalty (ids of prompt and output, once an id), min_tokens (ending
// tokens masked), presence and frequency penalty (generated tokens only), logit_bias, temperature, top_k
// (ties with the k-th stay), top_p, min_p. Then one draw by inverting the cumulative distribution in
// ascending id order with UniformFromCounter(seed, choice, position), position = the index that the new token
// gets. Temperature 0 takes the largest processed logit, the lowest id among equals. Among equals at the
// border of top_p the lower ids stay.

namespace bellwether {

struct SamplingInput {
  absl::Span<const float> logits;    // [vocabulary rows], raw; ids beyond cannot be sampled
  const SamplingOptions& options;    // validated
  absl::Span<const TokenId> tokens;  // the sequence so far: prompt, then output
  int32_t prompt_length = 0;         // tokens[0, prompt_length) is the prompt
  int32_t choice = 0;
};

struct SampledToken {
  TokenId token = -1;
  // Only if options.logprobs >= 0: log-softmax of the raw logits, before any penalty, temperature or filter.
  float logprob = 0;
  std::vector<TokenLogprob> top;  // the options.logprobs most likely, best first
};

// A token that may be drawn.
struct Candidate {
  TokenId token;
  float score;   // processed logit
  float weight;  // e^((score - largest score) / temperature)
};

// Memory that is used again from call to call. Holds nothing that a result depends on.
struct SamplingScratch {
  std::vector<float> scores;
  std::vector<float> largest;
  std::vector<Candidate> candidates;
  std::vector<uint8_t> seen;
  std::vector<TokenId> generated;
};

// Errors: DataLoss if a logit is NaN or +infinity, Internal if no token is left to choose.
absl::StatusOr<SampledToken> Sample(const SamplingInput& input, SamplingScratch& scratch);

// The token drawn from scratch.candidates, which hold ids and scores of all whose scores top_k lets stay, in
// ascending order of ids. Temperature above 0.
TokenId DrawFromCandidates(const SamplingInput& input, SamplingScratch& scratch);

struct TokenProbability {
  TokenId token;
  double probability;
};

// What Sample draws from at a temperature above 0: tokens in ascending order, probabilities that sum to 1.
absl::StatusOr<std::vector<TokenProbability>> FilteredDistribution(const SamplingInput& input,
                                                                   SamplingScratch& scratch);

}  // namespace bellwether
