#include "coordinator/device_class.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace bellwether {
namespace {

using Members = std::vector<const WorkerInventory*>;

bool Knows(const WorkerInventory& worker, const std::string& level) {
  return std::find(worker.kernel_levels.begin(), worker.kernel_levels.end(), level) !=
         worker.kernel_levels.end();
}

absl::Status CannotRun(const WorkerInventory& worker, const std::string& level) {
  return absl::FailedPreconditionError(absl::StrCat("worker ", worker.name, " cannot run kernel level ",
                                                    level, ", it has ",
                                                    absl::StrJoin(worker.kernel_levels, ", ")));
}

// The highest level that all have.
absl::StatusOr<std::string> HighestShared(const Members& members) {
  const std::vector<std::string>& levels = members[0]->kernel_levels;
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    const auto knows = [&level](const WorkerInventory* worker) { return Knows(*worker, *level); };
    if (std::all_of(members.begin(), members.end(), knows)) return *level;
  }
  return absl::FailedPreconditionError("the workers share no kernel level");
}

absl::StatusOr<std::string> LevelOf(const Members& members, absl::Span<const std::string> wanted,
                                    bool mix_devices) {
  for (const std::string& level : wanted) {
    const auto lacks = [&level](const WorkerInventory* worker) { return !Knows(*worker, level); };
    const auto lacking = std::find_if(members.begin(), members.end(), lacks);
    if (lacking == members.end()) return level;
    const bool of_this_class = !std::all_of(members.begin(), members.end(), lacks);
    if (of_this_class || !mix_devices) return CannotRun(**lacking, level);
  }
  return HighestShared(members);
}

}  // namespace

std::string DeviceClass(const WorkerInventory& worker) {
  return worker.gpu && !worker.kernel_levels.empty() ? worker.kernel_levels.back() : "cpu";
}

absl::StatusOr<std::vector<std::string>> ChooseKernelLevels(absl::Span<const WorkerInventory> workers,
                                                            absl::Span<const std::string> wanted,
                                                            bool mix_devices) {
  std::vector<std::string> levels(workers.size());
  for (size_t first = 0; first < workers.size(); ++first) {
    if (!levels[first].empty()) continue;
    const std::string device_class = DeviceClass(workers[first]);
    if (first > 0 && !mix_devices) {
      return absl::FailedPreconditionError(absl::StrCat(
          "workers ", workers[0].name, " (", DeviceClass(workers[0]), ") and ", workers[first].name, " (",
          device_class,
          ") compute different bits: --mix-devices on the coordinator lets them share a pipeline"));
    }
    Members members;
    for (const WorkerInventory& worker : workers) {
      if (DeviceClass(worker) == device_class) members.push_back(&worker);
    }
    BW_ASSIGN_OR_RETURN(const std::string level, LevelOf(members, wanted, mix_devices));
    for (const WorkerInventory* worker : members) levels[worker - workers.data()] = level;
  }
  return levels;
}

}  // namespace bellwether
