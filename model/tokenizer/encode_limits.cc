#include "model/tokenizer/encode_limits.h"

#include "absl/strings/str_cat.h"

namespace bellwether {

absl::Status EncodeProgress::Check(bool fits) {
  if (!fits) return absl::OutOfRangeError(absl::StrCat("text has more than ", limits_.tokens_max, " tokens"));
  work_ = 0;
  return limits_.stop == nullptr ? absl::OkStatus() : limits_.stop();
}

}  // namespace bellwether
