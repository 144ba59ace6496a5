#include "coordinator/core_shortage.h"

#include <algorithm>
#include <set>

namespace bellwether {

bool CoresAreShort(const WorkerInventory& worker, absl::Span<const WorkerInventory* const> workers) {
  const std::set<int32_t> own(worker.cpus.begin(), worker.cpus.end());
  std::set<int32_t> cores;
  int64_t threads = 0;
  for (const WorkerInventory* other : workers) {
    const bool shares =
        other->host == worker.host && std::any_of(other->cpus.begin(), other->cpus.end(),
                                                  [&own](int32_t cpu) { return own.contains(cpu); });
    if (!shares) continue;
    cores.insert(other->cpus.begin(), other->cpus.end());
    threads += other->threads;
  }
  const auto count = static_cast<double>(cores.size());
  return static_cast<double>(threads) > (worker.cpu_quota > 0 ? std::min(count, worker.cpu_quota) : count);
}

}  // namespace bellwether
