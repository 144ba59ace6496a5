#include "worker/inventory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/kernels.h"
#include "kernels/peaks.h"

namespace bellwether {
namespace {

constexpr int64_t kReadSampleBytesMax = int64_t{64} << 20;
constexpr double kBandwidthMin = 1e6;
constexpr size_t kCpuTypeBytesMax = 256;

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "max" and absent files are no limit.
std::optional<int64_t> ReadLimit(const std::string& path) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadText(path)), &value) || value <= 0)
    return std::nullopt;
  return value;
}

// "200000 100000": microseconds of CPU time for each period.
std::optional<double> ReadCpuMax(const std::string& group) {
  const std::vector<std::string> fields = absl::StrSplit(ReadText(group + "/cpu.max"), ' ');
  double quota = 0, period = 0;
  if (fields.size() != 2 || !absl::SimpleAtod(fields[0], &quota) || !absl::SimpleAtod(fields[1], &period) ||
      !(quota > 0 && period > 0)) {
    return std::nullopt;
  }
  return quota / period;
}
std::optional<double> ReadCpuQuota(const std::string& group) {
  const std::optional<int64_t> quota = ReadLimit(group + "/cpu.cfs_quota_us");
  const std::optional<int64_t> period = ReadLimit(group + "/cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}
std::optional<int64_t> ReadMemoryMax(const std::string& group) { return ReadLimit(group + "/memory.max"); }
std::optional<int64_t> ReadMemoryLimit(const std::string& group) {
  return ReadLimit(group + "/memory.limit_in_bytes");
}

// Less what the group has taken, but for pages of files, which it gives up before it runs out. `prefix`: of
// the counts of a group with all that are below it.
std::optional<int64_t> MemoryLeft(std::optional<int64_t> limit, const std::string& group,
                                  const std::string& usage, const std::string& prefix) {
  if (!limit) return std::nullopt;
  int64_t left = *limit - ReadLimit(absl::StrCat(group, "/", usage)).value_or(0);
  for (const absl::string_view line :
       absl::StrSplit(ReadText(group + "/memory.stat"), '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    int64_t bytes = 0;
    const bool of_files = fields[0] == prefix + "active_file" || fields[0] == prefix + "inactive_file";
    if (of_files && fields.size() == 2 && absl::SimpleAtoi(fields[1], &bytes)) left += bytes;
  }
  return std::clamp<int64_t>(left, 0, *limit);
}
std::optional<int64_t> ReadMemoryLeft(const std::string& group) {
  return MemoryLeft(ReadMemoryMax(group), group, "memory.current", "");
}
std::optional<int64_t> ReadMemoryLeftOfVersion1(const std::string& group) {
  return MemoryLeft(ReadMemoryLimit(group), group, "memory.usage_in_bytes", "total_");
}

// What limits a group, by its directory.
template <typename Number>
struct GroupLimit {
  const char* controller;
  std::optional<Number> (*of_version_2)(const std::string& group);
  std::optional<Number> (*of_version_1)(const std::string& group);
};
constexpr GroupLimit<int64_t> kMemoryLimit = {"memory", ReadMemoryMax, ReadMemoryLimit};
constexpr GroupLimit<int64_t> kMemoryLeft = {"memory", ReadMemoryLeft, ReadMemoryLeftOfVersion1};
constexpr GroupLimit<double> kCpuLimit = {"cpu", ReadCpuMax, ReadCpuQuota};

// The limit of a group and of all groups above it. Inside a container the path may name groups that only
// exist outside; then the ones that do exist count.
template <typename Number>
Number LimitUpwards(const std::string& mount, std::string group,
                    std::optional<Number> (*limit_of)(const std::string&)) {
  Number least = std::numeric_limits<Number>::max();
  while (true) {
    if (const auto limit = limit_of(mount + group)) least = std::min(least, *limit);
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

// The largest number where nothing limits this process.
template <typename Number>
Number ControlGroupLimit(const std::string& root, const GroupLimit<Number>& kind) {
  Number least = std::numeric_limits<Number>::max();
  for (const absl::string_view line :
       absl::StrSplit(ReadText(root + "/proc/self/cgroup"), '\n', absl::SkipEmpty())) {
    // "4:memory:/group" (v1) or "0::/group" (v2)
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    const std::string group = fields[2] == "/" ? "" : fields[2];
    const std::string mount = root + "/sys/fs/cgroup";
    if (fields[1].empty()) {
      least = std::min(least, LimitUpwards(mount, group, kind.of_version_2));
    } else if (std::find(controllers.begin(), controllers.end(), kind.controller) != controllers.end()) {
      least =
          std::min(least, LimitUpwards(absl::StrCat(mount, "/", kind.controller), group, kind.of_version_1));
    }
  }
  return least;
}

int64_t SystemAvailable(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    int64_t kilobytes = 0;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (fields.size() >= 2 && fields[0] == "MemAvailable:" && absl::SimpleAtoi(fields[1], &kilobytes)) {
      return kilobytes * 1024;
    }
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (!line.starts_with("model name") || colon == std::string::npos) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "unknown processor";
}

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

double CpuQuota(const std::string& root) {
  const double least = ControlGroupLimit(root, kCpuLimit);
  return least < std::numeric_limits<double>::max() ? least : 0;
}

absl::Status KeepToCpus(const std::vector<int>& cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus) {
    if (0 <= cpu && cpu < CPU_SETSIZE) CPU_SET(cpu, &mask);
  }
  if (sched_setaffinity(0, sizeof(mask), &mask) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("cpus are ", absl::StrJoin(cpus, ","),
                                                 ", this process may run on ",
                                                 absl::StrJoin(AllowedCpus(), ",")));
}

int64_t AvailableMemoryBytes(const std::string& root) {
  return std::min(ControlGroupLimit(root, kMemoryLimit), SystemAvailable(root));
}

int64_t FreeMemoryBytes(const std::string& root) {
  return std::min(ControlGroupLimit(root, kMemoryLeft), SystemAvailable(root));
}

int64_t ReadSampleBytes(int64_t available_bytes) {
  return std::min(kReadSampleBytesMax, available_bytes / 8);
}

double SampleReadBandwidth(int threads, double seconds) {
  return std::max(kBandwidthMin,
                  kernels::MeasureReadBandwidth(threads, seconds, ReadSampleBytes(AvailableMemoryBytes())));
}

double SampleArithmetic(kernels::Arithmetic arithmetic, int threads, double seconds) {
  return kernels::MeasureArithmeticPeak(kernels::AvailableKernelLevels().back(), arithmetic, threads,
                                        seconds);
}

std::string CpuType(const std::string& root) {
  std::ifstream file(root + "/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    const absl::string_view key = absl::StripAsciiWhitespace(field.first);
    if (key != "model name" && key != "CPU part") continue;  // x86, Arm
    return std::string(absl::StripAsciiWhitespace(field.second).substr(0, kCpuTypeBytesMax));
  }
  return "";
}

std::string HostId() {
  std::string boot = ReadText("/proc/sys/kernel/random/boot_id");
  absl::StripAsciiWhitespace(&boot);
  char space[64];
  const ssize_t length = readlink("/proc/self/ns/net", space, sizeof(space));
  return absl::StrCat(boot, "/", absl::string_view(space, static_cast<size_t>(std::max<ssize_t>(0, length))));
}

std::string DefaultWorkerName() {
  char host[256] = "worker";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(host, "/", getpid());
}

std::vector<std::string> KernelLevelNames() {
  std::vector<std::string> names;
  for (const kernels::KernelLevel level : kernels::AvailableKernelLevels())
    names.emplace_back(kernels::Name(level));
  return names;
}

std::string MachineLine() {
  return absl::StrCat(CpuName(), ", ", AllowedCpus().size(), " cores, kernel levels ",
                      absl::StrJoin(KernelLevelNames(), ", "), "\n");
}

}  // namespace bellwether
