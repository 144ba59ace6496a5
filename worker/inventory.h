#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bellwether {

// What this process may use of its machine.

// CPUs of the affinity mask, ascending; never empty.
std::vector<int> AllowedCpus();

// Keeps the calling thread, and those that it starts from now on, to these CPUs; others than the allowed ones
// are passed over. InvalidArgument if none is left.
absl::Status KeepToCpus(const std::vector<int>& cpus);

// The least of what the system has available and the memory limits of the process's control groups (v1 and
// v2). `root`: where /proc and /sys are looked for; tests have their own.
int64_t AvailableMemoryBytes(const std::string& root = "");

// Equal on processes that can share memory through abstract Unix sockets: of one boot and one network
// namespace.
std::string HostId();

// "host/pid": a name for people.
std::string DefaultWorkerName();

// Kernel levels of this CPU, ascending, by name.
std::vector<std::string> KernelLevelNames();

}  // namespace bellwether
