#include "common/metrics/metric_table.h"

namespace bellwether {

absl::string_view Name(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

absl::string_view Name(MetricSource source) {
  switch (source) {
    case MetricSource::kCoordinator:
      return "coordinator";
    case MetricSource::kWorker:
      return "worker";
    case MetricSource::kBoth:
      return "both";
  }
  return "unknown";
}

absl::Span<const absl::string_view> LabelValuesOf(Metric metric, absl::string_view label) {
  for (const MetricLabelValues& it : kMetricLabelValues) {
    if (it.metric == metric && it.label == label) return it.values;
  }
  return {};
}

}  // namespace bellwether
