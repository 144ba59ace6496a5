#pragma once

#include <vector>

#include "absl/time/time.h"

namespace bellwether {

// Tokens per second of streams while all of them decode: from the last first token to the first last one, by
// when each token came (ascending). A stream that begins late or ends early would otherwise have time with
// fewer beside it, and look faster. 0 if they were never all at it.
double DecodeRate(const std::vector<std::vector<absl::Duration>>& streams);

}  // namespace bellwether
