#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/peaks.h"

namespace bellwether {

// How the processor calls itself: "AMD EPYC 9B14". "unknown processor" where the system does not say.
std::string CpuName();

// What this process may use of its machine.

// CPUs of the affinity mask, ascending; never empty.
std::vector<int> AllowedCpus();

// Cores' worth of time that the process's control groups (v1 and v2) allow; 0: no limit. `root` as below.
double CpuQuota(const std::string& root = "");

// Keeps the calling thread, and those that it starts from now on, to these CPUs; others than the allowed ones
// are passed over. InvalidArgument if none is left.
absl::Status KeepToCpus(const std::vector<int>& cpus);

// The least of what the system has available and the memory limits of the process's control groups (v1 and
// v2). `root`: where /proc and /sys are looked for; tests have their own.
int64_t AvailableMemoryBytes(const std::string& root = "");
// Likewise, but of a limit only what its group has left: this process may take so much more now.
int64_t FreeMemoryBytes(const std::string& root = "");

// Bytes per second that `threads` threads read from memory, for the planner: measured for about `seconds` in
// a buffer of at most ReadSampleBytes, so that a small container survives its own measurement. At least 1e6:
// a machine too small to measure is as slow as that.
double SampleReadBandwidth(int threads, double seconds);
// Operations per second that products reach at most, for the planner: measured for about `seconds` at the
// highest kernel level that this machine has.
double SampleArithmetic(kernels::Arithmetic arithmetic, int threads, double seconds);
// 64 MiB, or an eighth of what is available if that is less.
int64_t ReadSampleBytes(int64_t available_bytes);

// What /proc/cpuinfo calls the processor: workers of one host and type are equally fast. Empty if it does not
// say.
std::string CpuType(const std::string& root = "");

// Equal on processes that can share memory through abstract Unix sockets: of one boot and one network
// namespace.
std::string HostId();

// "host/pid": a name for people.
std::string DefaultWorkerName();

// Kernel levels of this CPU, ascending, by name.
std::vector<std::string> KernelLevelNames();

// The line of --version on the machine: its processor, the cores that this process may use, kernel levels.
std::string MachineLine();

}  // namespace bellwether
