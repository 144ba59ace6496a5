#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "cli/load/load_result.h"
#include "common/json.h"

namespace bellwether {

// Of all requests that were answered: seconds.
struct LoadQuantiles {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, most = 0;
};
// The quantile q is the value that a share q of all are not above: the ceil(q n)-th of n, never one in
// between.
LoadQuantiles QuantilesOf(std::vector<double> values);

// What came of one load.
struct LoadReport {
  std::string name;  // of the load: "8 at once", "2.5/s"
  int64_t requests = 0, answered = 0;
  std::map<std::string, int64_t> errors;   // by kind
  std::map<std::string, std::string> why;  // what a server said of the first of a kind
  double seconds = 0;                      // from the first request's begin to the last one's end
  int64_t prompt_tokens = 0, generated_tokens = 0;
  LoadQuantiles time_to_first_token, between_tokens, time_per_output_token, end_to_end;
  // Answered within the objectives, if there are any; errors are not.
  bool has_objectives = false;
  int64_t within = 0;
  // Of the load itself: how late requests left, and processor time that it used.
  LoadQuantiles lateness;
  double own_cpu_seconds = 0;

  double RequestsPerSecond() const { return seconds > 0 ? static_cast<double>(answered) / seconds : 0; }
  double TokensPerSecond() const { return seconds > 0 ? static_cast<double>(generated_tokens) / seconds : 0; }
  double Goodput() const { return seconds > 0 ? static_cast<double>(within) / seconds : 0; }  // requests/s
};
LoadReport MakeLoadReport(absl::Span<const LoadResult> results, const LoadObjectives& objectives);

Json ToJson(const LoadReport& report);
// "3 failed: INVALID_ARGUMENT, the first: max_tokens is 0 …" for each kind of error.
std::vector<std::string> ErrorLines(const LoadReport& report);
// Several lines for a person.
std::string ToText(const LoadReport& report);

// A table of a sweep, one row a load, and the knee: the smallest load with at least nine tenths of the most
// tokens per second that any of them had. More load than that buys waiting.
size_t KneeOf(absl::Span<const LoadReport> reports);
std::string SweepText(absl::Span<const LoadReport> reports);

}  // namespace bellwether
