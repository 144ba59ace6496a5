#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// Workers that share memory.
struct PlanHost {
  std::string name;
  int64_t memory_bytes = 0;  // the least that one of them sees free
  int64_t usable_bytes = 0;
  std::vector<size_t> workers;  // indices of the inventory
};

// The plan as text for people: a line for each worker and host, then what follows from it. `context_blocks`:
// KV blocks of one whole context, which must fit.
std::string PlanArithmetic(const Plan& plan, absl::Span<const WorkerInventory> workers,
                           const std::vector<PlanHost>& hosts, int32_t context_blocks);

}  // namespace bellwether
