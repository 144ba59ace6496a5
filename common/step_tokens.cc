#include "common/step_tokens.h"

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bellwether {

absl::StatusOr<int32_t> ParseStepTokens(std::string_view text) {
  if (text == "auto") return kStepTokensAuto;
  int32_t tokens = 0;
  if (absl::SimpleAtoi(std::string(text), &tokens) && tokens >= 1 && tokens <= kStepTokensMax) return tokens;
  return absl::InvalidArgumentError(
      absl::StrCat("step-tokens is ", std::string(text), ", allowed is auto or 1 to ", kStepTokensMax));
}

}  // namespace bellwether
