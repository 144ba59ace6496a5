#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/planner.h"

namespace bellwether {

// Which workers can compute the same bits. CPUs form one class, within which some kernel level is shared; the
// GPUs of a numeric class form another each. The ranks of a stage are always of one class.

// "cpu", or a GPU's only kernel level: "cuda_sm90".
std::string DeviceClass(const WorkerInventory& worker);

// The kernel level of each worker: the highest that all of its class have. Where a class knows any of
// `wanted`, it is one of those. FailedPrecondition: there is none; one class knows none of `wanted`, or there
// are several classes, unless they may mix.
absl::StatusOr<std::vector<std::string>> ChooseKernelLevels(absl::Span<const WorkerInventory> workers,
                                                            absl::Span<const std::string> wanted,
                                                            bool mix_devices);

}  // namespace bellwether
