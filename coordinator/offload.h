#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// Whose weights do not fit and are streamed from a drive instead (model/streamed_layers.h). Pure.

// A worker of the plan and what may be streamed of it.
struct OffloadCandidate {
  PlannedWorker* worker = nullptr;
  std::vector<int64_t> layer_bytes;  // of each of its layers; empty: it cannot stream
};

// What the worker has in memory of its weights if `streamed` of its layers are streamed, buffers included.
int64_t ResidentBytes(const OffloadCandidate& candidate, int32_t streamed);

// Streams as few layers as leave room for `kv_blocks` KV blocks, the same share of each worker's, where all
// of them together have `usable_bytes`. False, and nothing is changed, if there is no such number.
bool StreamToFit(absl::Span<const OffloadCandidate> candidates, int64_t usable_bytes, int64_t kv_blocks);

}  // namespace bellwether
