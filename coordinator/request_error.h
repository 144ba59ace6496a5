#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bellwether {

// What an error is about besides its message, for doors that tell it apart (OpenAI's "param" and "code"). It
// travels with the status, as long as nobody writes a new one.

inline constexpr char kContextLengthExceeded[] = "context_length_exceeded";

// `field`: of the request, as inference.proto spells it.
absl::Status WithField(absl::Status status, std::string_view field);
absl::Status WithCode(absl::Status status, std::string_view code);

// "" if nobody has said.
std::string FieldOf(const absl::Status& status);
std::string CodeOf(const absl::Status& status);

}  // namespace bellwether
