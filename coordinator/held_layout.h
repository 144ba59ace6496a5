#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/planner.h"
#include "model/layout.h"

namespace bellwether {

// Weights that are loaded need not be loaded again: which layout the workers hold, and who holds what of it.

// Whether `worker` holds this part of `layout` with weights rounded in this way.
bool HoldsPart(const WorkerInventory& worker, Quantize quantize, const Layout& layout, int stage, int rank);

// The layout that most of the workers hold parts of, the first of several; null if none holds anything.
const Layout* MostHeldLayout(absl::Span<const WorkerInventory> workers, Quantize quantize);

// Which worker (its index) takes which place of `layout`, stage by stage: each of them keeps what it holds of
// it, and the places that are left go to the others, if possible on one host with the rest of their stage.
// `layout` has at most as many places as there are workers.
std::vector<std::vector<size_t>> AssignHolders(absl::Span<const WorkerInventory> workers, Quantize quantize,
                                               const Layout& layout);

}  // namespace bellwether
