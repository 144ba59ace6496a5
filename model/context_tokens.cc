#include "model/context_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/defaults.h"

namespace bellwether {

absl::StatusOr<int32_t> ContextTokens(const ModelConfig& config, int32_t wanted) {
  if (wanted == 0) wanted = std::min(kDefaultContextTokens, config.max_positions);
  if (wanted > config.max_positions && !config.alibi) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context-tokens is ", wanted, ", the model knows positions up to ", config.max_positions));
  }
  if (wanted < 2) return absl::InvalidArgumentError("context-tokens must be 2 or more");
  return wanted;
}

}  // namespace bellwether
