#include "metrics/metrics.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "common/check.h"
#include "common/quote.h"
#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"

namespace bellwether {
namespace {

using Labels = std::vector<std::string>;

bool Exports(MetricSource program, const MetricSpec& spec) {
  return spec.source == program || spec.source == MetricSource::kBoth;
}

// The table says which labels there are, and of some all values: anything else is a mistake of ours.
Labels Clean(const MetricSpec& spec, std::initializer_list<absl::string_view> given) {
  BW_CHECK_EQ(given.size(), spec.labels.size());
  Labels labels;
  labels.reserve(given.size());
  for (const absl::string_view value : given) {
    const absl::Span<const absl::string_view> known = LabelValuesOf(spec.id, spec.labels[labels.size()]);
    BW_CHECK(known.empty() || std::find(known.begin(), known.end(), value) != known.end());
    labels.push_back(Printable(CutText({value.data(), value.size()}, kLabelBytesMax)));
  }
  return labels;
}

prometheus::MetricType TypeOf(const MetricSpec& spec) {
  switch (spec.type) {
    case MetricType::kCounter:
      return prometheus::MetricType::Counter;
    case MetricType::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricType::kHistogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

// The families of all metrics, in the table's order, without series.
std::vector<prometheus::MetricFamily> EmptyFamilies() {
  std::vector<prometheus::MetricFamily> families;
  families.reserve(kMetricTable.size());
  for (const MetricSpec& spec : kMetricTable) {
    families.push_back({std::string(spec.name), std::string(spec.help), TypeOf(spec), {}});
  }
  return families;
}

prometheus::ClientMetric Series(const MetricSpec& spec, const Labels& labels) {
  prometheus::ClientMetric series;
  series.label.reserve(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) series.label.push_back({std::string(spec.labels[i]), labels[i]});
  return series;
}

prometheus::ClientMetric Series(const MetricSpec& spec, const Labels& labels, double value) {
  prometheus::ClientMetric series = Series(spec, labels);
  series.counter.value = series.gauge.value = value;  // the family's type chooses
  return series;
}

prometheus::ClientMetric Series(const MetricSpec& spec, const Labels& labels, const MetricHistogram& cell) {
  prometheus::ClientMetric series = Series(spec, labels);
  uint64_t count = 0;
  for (size_t i = 0; i < cell.bounds().size(); ++i) {
    count += cell.count(i);
    series.histogram.bucket.push_back({count, cell.bounds()[i]});
  }
  // Not counted apart: what is observed meanwhile must not make it differ from the buckets.
  series.histogram.sample_count = count + cell.count(cell.bounds().size());
  series.histogram.sample_sum = cell.sum();
  return series;
}

}  // namespace

void MetricSamples::Add(Metric metric, std::initializer_list<absl::string_view> labels, double value) {
  const MetricSpec& spec = SpecOf(metric);
  BW_CHECK(spec.type != MetricType::kHistogram && Exports(program_, spec));
  std::vector<Sample>& samples = samples_[static_cast<size_t>(metric)];
  if (samples.size() < kSeriesMax) samples.push_back({Clean(spec, labels), value});
}

Metrics::Cell& Metrics::FindOrAdd(Metric metric, MetricType type,
                                  std::initializer_list<absl::string_view> given) {
  const MetricSpec& spec = SpecOf(metric);
  BW_CHECK(spec.type == type && Exports(program_, spec));
  Labels labels = Clean(spec, given);
  MutexLock lock(&mutex_);
  for (Cell& cell : cells_) {
    if (cell.metric == metric && cell.labels == labels) return cell;
  }
  return cells_.emplace_back(metric, std::move(labels));
}

MetricCounter& Metrics::Counter(Metric metric, std::initializer_list<absl::string_view> labels) {
  return FindOrAdd(metric, MetricType::kCounter, labels).counter;
}

MetricHistogram& Metrics::Histogram(Metric metric, std::initializer_list<absl::string_view> labels) {
  return FindOrAdd(metric, MetricType::kHistogram, labels).histogram;
}

void Metrics::AddSource(Source source) {
  MutexLock lock(&mutex_);
  sources_.push_back(std::move(source));
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = EmptyFamilies();
  std::vector<Source> sources;
  {
    MutexLock lock(&mutex_);
    sources = sources_;
    for (const Cell& cell : cells_) {
      const MetricSpec& spec = SpecOf(cell.metric);
      const bool counter = spec.type == MetricType::kCounter;
      families[static_cast<size_t>(cell.metric)].metric.push_back(
          counter ? Series(spec, cell.labels, cell.counter.value())
                  : Series(spec, cell.labels, cell.histogram));
    }
  }
  MetricSamples samples(program_);
  for (const Source& source : sources) source(samples);
  for (const MetricSpec& spec : kMetricTable) {
    for (const MetricSamples::Sample& sample : samples.of(spec.id)) {
      families[static_cast<size_t>(spec.id)].metric.push_back(Series(spec, sample.labels, sample.value));
    }
  }
  // What the other program exports, and what there is nothing to say of.
  std::erase_if(families, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace bellwether
