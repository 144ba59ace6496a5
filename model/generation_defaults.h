#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/generation_options.h"

namespace bellwether {

// What a generation_config.json says of sampling: do_sample (false: the most likely token), temperature,
// top_k, top_p, min_p, repetition_penalty, max_new_tokens, min_new_tokens. InvalidArgument: one of them is no
// number.
absl::StatusOr<GenerationOptions> ParseGenerationDefaults(const std::string& json_text);

// Each field of those that `options` lacks is taken from `defaults`.
void FillIn(const GenerationOptions& defaults, GenerationOptions& options);

}  // namespace bellwether
