#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"
#include "common/sampling_options.h"

namespace bellwether {

// Tokens in a KV block. Part of the arithmetic: attention walks tiles of two blocks.
inline constexpr int kKvBlockTokens = 32;

// What a worker learns about a sequence once per (epoch, re-admission).
struct Admission {
  SequenceId sequence;
  int32_t choice = 0;           // index among the n choices of the request: part of the random key
  std::vector<TokenId> tokens;  // everything known so far: the prompt and, after a re-admission, the output
  int32_t prompt_length = 0;    // tokens[0, prompt_length) is the prompt
  bool score = false;           // log-probability of every given token instead of sampling
  SamplingOptions sampling;
};

// What one step computes for one sequence: positions [position, position + count).
struct StepEntry {
  SequenceId sequence;
  int32_t position = 0;
  int32_t count = 0;
  // Tokens that the worker does not know yet (those sampled by earlier steps); they are appended to the
  // sequence's tokens before the step runs, after which it holds at least position + count of them.
  std::vector<TokenId> new_tokens;
  // Blocks appended to the sequence's block table before the step runs.
  std::vector<KvBlockId> new_blocks;
  bool sample = false;  // choose the token that follows position + count - 1
};

// One batched pass through all stages. Every worker gets the same Step.
struct Step {
  Epoch epoch;
  StepId id;
  std::vector<Admission> admissions;  // take effect before entries
  std::vector<SequenceId> retired;    // forgotten before admissions: their blocks are free
  std::vector<StepEntry> entries;

  // That it computes.
  int32_t tokens() const {
    int32_t sum = 0;
    for (const StepEntry& entry : entries) sum += entry.count;
    return sum;
  }
};

struct TokenLogprob {
  TokenId token = -1;
  float logprob = 0;
};

// What a step gave for one sequence.
struct StepOutput {
  SequenceId sequence;
  TokenId token = -1;  // the sampled token; -1 if entry.sample was false or `error` says why
  float logprob = 0;   // of `token`: log-softmax of the raw logits, if SamplingOptions::logprobs >= 0
  std::vector<TokenLogprob> top;
  // Score sequences: log-probabilities of the tokens at position + 1 ... position + count, as far as they
  // exist.
  std::vector<float> scores;
  // Why no token could be sampled, or that a score is NaN; else empty. Ends this sequence's request and no
  // other.
  std::string error;
};

// From rank 0 of the last stage to the engine.
struct StepResult {
  Epoch epoch;
  StepId id;
  std::vector<StepOutput> outputs;  // one for each entry that samples or scores, in entry order
};

}  // namespace bellwether
