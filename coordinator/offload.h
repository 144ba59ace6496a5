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
  EndBytes ends;                     // of embedding and head
};

// What the worker has in memory of its weights if `streamed` of its layers and `ends` are streamed, buffers
// included.
int64_t ResidentBytes(const OffloadCandidate& candidate, int32_t streamed, const StreamedEnds& ends = {});

// Streams so that there is room for `kv_blocks` KV blocks, where all workers together have `usable_bytes`,
// and as few bytes a step as possible. An embedding, of which a step reads some rows, goes before anything
// else; a head only where that leaves fewer bytes of layers than it has; of layers go as few as possible, the
// same share of each worker's. False, and nothing is changed, if there is no such way.
bool StreamToFit(absl::Span<const OffloadCandidate> candidates, int64_t usable_bytes, int64_t kv_blocks);

// What the workers of GPUs have in the memory of `host`.
int64_t HostBytes(absl::Span<const WorkerInventory> workers, const MemoryPool& host, const Plan& plan);

// Where what a GPU's workers stream lies, as long as nobody has looked at its host: on a drive, by way of
// buffers, if they have one.
void ChooseHomes(const MemoryPool& gpu, absl::Span<const OffloadCandidate> candidates);

// Moves them to the memory of hosts, GPU by GPU, where that has room beside all that it is asked for
// otherwise, with `context_blocks` KV blocks: it is faster than a drive.
void PreferHosts(absl::Span<const WorkerInventory> workers, const std::vector<MemoryPool>& pools,
                 int32_t context_blocks, Plan* plan);

// How long what is streamed in a step is on its way.
void PredictDrives(absl::Span<const WorkerInventory> workers, const std::vector<MemoryPool>& pools,
                   Plan* plan);

}  // namespace bellwether
