#include "metrics/process_samples.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/read_file.h"

namespace bellwether {
namespace {

constexpr size_t kFileBytesMax = 4 << 20;  // /proc/stat has a line for each CPU

// Fields of /proc/self/stat, counted from the state, which follows the program's name.
enum StatField { kUserTime = 11, kSystemTime = 12, kStartTime = 19, kResidentPages = 21, kStatFields };

std::optional<std::vector<double>> ReadStat() {
  const absl::StatusOr<std::string> text = ReadFile("/proc/self/stat", kFileBytesMax);
  if (!text.ok()) return std::nullopt;
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::vector<double> values;
  for (const absl::string_view field :
       absl::StrSplit(text->substr(name_end + 1), ' ', absl::SkipWhitespace())) {
    double value = 0;
    if (!absl::SimpleAtod(field, &value)) value = 0;  // the state is a letter
    values.push_back(value);
  }
  if (values.size() < kStatFields) return std::nullopt;
  return values;
}

// Seconds since 1970 at which the system started.
std::optional<double> BootTime() {
  const absl::StatusOr<std::string> text = ReadFile("/proc/stat", kFileBytesMax);
  if (!text.ok()) return std::nullopt;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    double seconds = 0;
    if (absl::ConsumePrefix(&line, "btime ") && absl::SimpleAtod(line, &seconds)) return seconds;
  }
  return std::nullopt;
}

double OpenDescriptors() {
  std::error_code error;
  int count = 0;
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) ++count;
  return count;
}

}  // namespace

void AddProcessSamples(MetricSamples& samples) {
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (const std::optional<std::vector<double>> stat = ReadStat()) {
    const std::vector<double>& at = *stat;
    samples.Add(Metric::kProcessCpuTime, (at[kUserTime] + at[kSystemTime]) / ticks_per_second);
    samples.Add(Metric::kProcessResidentMemory,
                at[kResidentPages] * static_cast<double>(sysconf(_SC_PAGESIZE)));
    static const std::optional<double> boot_time = BootTime();  // it does not change
    if (boot_time) samples.Add(Metric::kProcessStartTime, *boot_time + at[kStartTime] / ticks_per_second);
  }
  samples.Add(Metric::kProcessOpenFds, OpenDescriptors());
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    samples.Add(Metric::kProcessMaxFds, static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace bellwether
