#pragma once

#include <optional>

#include "absl/types/span.h"
#include "kernels/largest_value.h"
#include "worker/sampling/sampler.h"

namespace bellwether {

// Sampling from the largest logits alone, for devices that would have to bring whole rows to the host: the
// same tokens as Sample's, or none.

// How many of each chunk are needed for a sequence, of `vocab` logits; 0: all that there are, as with
// penalties, log-probabilities and top_p alone. input.logits is not looked at.
int LargestNeeded(const SamplingInput& input, int64_t vocab);

// With `values` [chunks][count], at least as many as needed, as DeviceOps::Largest gives them. Nothing if
// they do not decide: more logits are equal to the least that count than there are values, or one is no
// number.
std::optional<SampledToken> SampleFromLargest(const SamplingInput& input,
                                              absl::Span<const kernels::LargestValue> values, int count,
                                              SamplingScratch& scratch);

}  // namespace bellwether
