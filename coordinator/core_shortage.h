#pragma once

#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// Whether `worker` and those of `workers` (itself among them) that share CPUs with it have more threads than
// cores: one that spins while it waits then keeps another from getting on. A worker that does not say where
// it runs has enough.
bool CoresAreShort(const WorkerInventory& worker, absl::Span<const WorkerInventory* const> workers);

}  // namespace bellwether
