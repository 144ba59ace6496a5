#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace bellwether {

// How many tokens a step may have, as --step-tokens says it.
inline constexpr int32_t kStepTokensMax = 1 << 16;
inline constexpr int32_t kStepTokensAuto = 0;  // the planner decides

// "auto" or 1 to kStepTokensMax; anything else is InvalidArgument, with what is allowed.
absl::StatusOr<int32_t> ParseStepTokens(std::string_view text);

}  // namespace bellwether
