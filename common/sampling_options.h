#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/ids.h"

namespace bellwether {

// How the next token is chosen from the logits. Hugging Face's meanings (see docs/architecture.md, Sampling);
// the defaults leave the model's distribution alone. Validated at the coordinator's edge.
struct SamplingOptions {
  double temperature = 1.0;                           // 0 = greedy
  int32_t top_k = 0;                                  // 0 = off
  double top_p = 1.0;                                 // 1 = off, in (0, 1]
  double min_p = 0.0;                                 // 0 = off, in [0, 1]
  double repetition_penalty = 1.0;                    // > 0, prompt and output, once an id
  double presence_penalty = 0.0;                      // generated tokens only
  double frequency_penalty = 0.0;                     // generated tokens only, times the count
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the logit; ascending unique ids
  int32_t min_tokens = 0;              // ending_tokens cannot be sampled before this many are generated
  std::vector<TokenId> ending_tokens;  // end-of-sequence and stop token ids: masked by min_tokens
  uint64_t seed = 0;
  int32_t logprobs = -1;  // -1 = none wanted; n >= 0: of the sampled token and of the n most likely
};

}  // namespace bellwether
