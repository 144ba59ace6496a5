#pragma once

#include "worker/sampling/sampler.h"

namespace bellwether {

// True if ApplyProcessors would change no logit.
bool HasNoProcessors(const SamplingInput& input);

// scratch.scores = input.logits after repetition penalty, min_tokens, presence and frequency penalty and
// logit_bias.
void ApplyProcessors(const SamplingInput& input, SamplingScratch& scratch);

}  // namespace bellwether
