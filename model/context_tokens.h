#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace bellwether {

// Longest prompt and answer together: `wanted`, or for 0 what the model can, at most kDefaultContextTokens.
// InvalidArgument: below 2, or beyond the positions that the model knows (with ALiBi there is no such end).
absl::StatusOr<int32_t> ContextTokens(const ModelConfig& config, int32_t wanted);

}  // namespace bellwether
