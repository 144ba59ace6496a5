#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/memory_pool.h"
#include "coordinator/planner.h"

namespace bellwether {

// Whose weights do not fit and are streamed instead (model/streamed_layers.h). Pure.

// A worker of the plan and what may be streamed of it.
struct OffloadCandidate {
  PlannedWorker* worker = nullptr;
  std::vector<int64_t> layer_bytes;  // of the images of its layers
};

// What the worker has in memory of its weights if `streamed` of its layers are streamed, buffers included.
int64_t ResidentBytes(const OffloadCandidate& candidate, int32_t streamed);

// Streams as few layers as leave room for `kv_blocks` KV blocks, the same share of each worker's, where all
// of them together have `usable_bytes`. False, and nothing is changed, if there is no such number.
bool StreamToFit(absl::Span<const OffloadCandidate> candidates, int64_t usable_bytes, int64_t kv_blocks);

// What the workers of GPUs have in the memory of `host`.
int64_t HostBytes(absl::Span<const WorkerInventory> workers, const MemoryPool& host, const Plan& plan);

// Where the streamed layers of those who share `gpu` lie: in its host's memory if that has room beside all
// that it is asked for otherwise, with `context_blocks` KV blocks, since it is faster than a drive.
void ChooseHomes(absl::Span<const WorkerInventory> workers, const MemoryPool& gpu, const MemoryPool& host,
                 int32_t context_blocks, absl::Span<const OffloadCandidate> candidates, const Plan& plan);

// How long what is streamed in a step is on its way.
void PredictDrives(absl::Span<const WorkerInventory> workers, const std::vector<MemoryPool>& pools,
                   Plan* plan);

}  // namespace bellwether
