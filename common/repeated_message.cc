#include "common/repeated_message.h"

#include <algorithm>

namespace bellwether {
namespace {
constexpr absl::Duration kPauseFirst = absl::Seconds(1);
constexpr absl::Duration kPauseMax = absl::Minutes(1);
}  // namespace

bool RepeatedMessage::IsDue(absl::Duration now, const std::string& message) {
  if (!any_ || message != message_) {
    any_ = true;
    message_ = message;
    since_ = now;
    pause_ = kPauseFirst;
  } else if (now < next_) {
    return false;
  } else {
    pause_ = std::min(2 * pause_, kPauseMax);
  }
  next_ = now + pause_;
  return true;
}

}  // namespace bellwether
