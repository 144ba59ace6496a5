#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/layout.h"

namespace bellwether {

// Layouts as people write them: stages separated by commas, each LAYERSxRANKS ("16x2,16x1": 16 layers on two
// ranks, then 16 on one) or LAYERSxSLICES+SLICES... for ranks of uneven size ("16x10+6"). Slices are those of
// SliceCount; rows of the vocabulary are shared out evenly. InvalidArgument says what does not add up.
absl::StatusOr<Layout> ParseLayout(const ModelConfig& config, std::string_view text);

}  // namespace bellwether
