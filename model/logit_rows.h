#pragma once

namespace bellwether {

// Rows of logits that a worker holds at once (with a vocabulary of 250,000 they are 64 MB), as the planner
// counts them.
inline constexpr int kLogitRowsMax = 64;

}  // namespace bellwether
