#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/metrics/metric_table.h"

// Reads what Metrics::Text writes.

namespace bellwether {

// The lines of series; comments are left out.
inline std::vector<std::string> SeriesIn(const std::string& text) {
  std::vector<std::string> series;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (!absl::StartsWith(line, "#")) series.emplace_back(line);
  }
  return series;
}

// Names of the metrics that have series; of a histogram its own, without _bucket and the like.
inline std::set<std::string> MetricsIn(const std::string& text) {
  std::set<std::string> names;
  for (const std::string& line : SeriesIn(text)) {
    const absl::string_view name = absl::string_view(line).substr(0, line.find_first_of("{ "));
    for (const MetricSpec& spec : kMetricTable) {
      absl::string_view rest = name;
      if (!absl::ConsumePrefix(&rest, spec.name)) continue;
      const bool part =
          spec.type == MetricType::kHistogram && (rest == "_bucket" || rest == "_sum" || rest == "_count");
      if (rest.empty() || part) names.emplace(spec.name);
    }
  }
  return names;
}

// What the table gives to `program`.
inline std::set<std::string> MetricsOf(MetricSource program) {
  std::set<std::string> names;
  for (const MetricSpec& spec : kMetricTable) {
    if (spec.source == program || spec.source == MetricSource::kBoth) names.emplace(spec.name);
  }
  return names;
}

}  // namespace bellwether
