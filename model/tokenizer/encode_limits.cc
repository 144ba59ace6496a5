#include "model/tokenizer/encode_limits.h"

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// A millisecond's work, more or less.
constexpr size_t kWorkBetweenStops = 4096;

}  // namespace

absl::Status EncodeProgress::Advance(size_t work, size_t to_come) {
  if (ids_.size() > limits_.tokens_max || to_come > limits_.tokens_max - ids_.size()) {
    return absl::OutOfRangeError(absl::StrCat("text has more than ", limits_.tokens_max, " tokens"));
  }
  work_ += work;
  if (work_ < kWorkBetweenStops || limits_.stop == nullptr) return absl::OkStatus();
  work_ = 0;
  return limits_.stop();
}

}  // namespace bellwether
