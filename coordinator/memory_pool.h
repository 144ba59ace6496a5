#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// Memory that several workers may share: a host's, or a GPU's.
struct MemoryPool {
  std::string name;             // "host a", "NVIDIA H200 1f0c93aa of host a"
  int64_t free_bytes = 0;       // the least that one of its workers has seen
  int64_t usable_bytes = 0;     // of those
  int64_t process_bytes = 0;    // that go to workers whose weights lie on a GPU
  std::vector<size_t> workers;  // indices of those whose weights and KV cache lie here
  bool gpu = false;
  std::string host;
  // At which layers may be streamed to these workers, the least that one of them has seen; 0: they may not.
  double drive_bytes_per_second = 0;      // from the drive that their host has
  double host_copy_bytes_per_second = 0;  // from the host's memory to the GPU
  int64_t host_room_bytes = 0;            // that a GPU may take there, if others take as much
  // Of so many bytes; 0: they cannot be streamed.
  double StreamBytesPerSecond(int64_t bytes) const {
    return bytes <= host_room_bytes || drive_bytes_per_second == 0
               ? std::max(drive_bytes_per_second, host_copy_bytes_per_second)
               : drive_bytes_per_second;
  }
};

// Code, connections and buffers of a process that has a CUDA context.
inline constexpr int64_t kGpuProcessBytes = int64_t{512} << 20;
// What a worker that computes on a GPU takes of its host's memory: that, what it pins, and while it loads a
// piece of a matrix as its host packs it.
int64_t GpuHostBytes(const ModelConfig& config, const PlannerOptions& options);

// The pools of all workers, in the order of their first worker; each worker is in one of them.
std::vector<MemoryPool> MemoryPools(absl::Span<const WorkerInventory> workers, const ModelConfig& config,
                                    const PlannerOptions& options);

}  // namespace bellwether
