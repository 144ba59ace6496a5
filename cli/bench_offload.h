#pragma once

#include "absl/status/status.h"
#include "cli/bench.h"

namespace bellwether {

// `bellwether bench --memory LIMIT --offload MODE`: for each layout how near a step of one sequence comes to
// what the drive allows, whose rate is measured right beside it, and the tokens per second of 1, 16 and,
// where the KV cache has room, 64 sequences at once, as shares of what the plan says. Layers are kept in a
// directory of the bench's own in the shard cache, which goes when it ends.
absl::Status RunOffloadBench(const BenchOptions& options);

}  // namespace bellwether
