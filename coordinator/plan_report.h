#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/memory_pool.h"
#include "coordinator/planner.h"

namespace bellwether {

// The plan as text for people: a line for each worker, host and GPU, then what follows from it.
// `context_blocks`: KV blocks of one whole context, which must fit.
std::string PlanArithmetic(const Plan& plan, absl::Span<const WorkerInventory> workers,
                           const std::vector<MemoryPool>& pools, int32_t context_blocks);

}  // namespace bellwether
