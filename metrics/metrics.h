#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/metrics/metric_table.h"
#include "common/mutex.h"
#include "metrics/cells.h"

namespace bellwether {

// The numbers of a program, in the words of the table, as Prometheus reads them. Two kinds: cells, which are
// counted where something happens, and samples, which sources give when somebody asks.

// Series of a metric that are exported; more are left out. The coordinator's limits allow no more, so this is
// for mistakes of ours.
inline constexpr size_t kSeriesMax = 8192;
// Of a label value; longer ones are cut.
inline constexpr size_t kLabelBytesMax = 128;

// What sources say at one time.
class MetricSamples {
 public:
  explicit MetricSamples(MetricSource program) : program_(program) {}

  // Of a counter or gauge, with a value for each of the table's labels. Whoever had a part in those: what is
  // too long is cut, and bytes that are not UTF-8 are escaped.
  void Add(Metric metric, std::initializer_list<absl::string_view> labels, double value);
  void Add(Metric metric, double value) { Add(metric, {}, value); }

  struct Sample {
    std::vector<std::string> labels;
    double value = 0;
  };
  const std::vector<Sample>& of(Metric metric) const { return samples_[static_cast<size_t>(metric)]; }

 private:
  const MetricSource program_;
  std::vector<std::vector<Sample>> samples_{kMetricTable.size()};  // by metric
};

class Metrics {
 public:
  // `program` exports what the table gives to it.
  explicit Metrics(MetricSource program) : program_(program) {}
  Metrics(const Metrics&) = delete;

  // -- When the program starts

  // Live as long as this. The same labels get the same cell. Each is exported from now on, with 0 at first:
  // ask for all of a label's values.
  MetricCounter& Counter(Metric metric, std::initializer_list<absl::string_view> labels = {});
  MetricHistogram& Histogram(Metric metric, std::initializer_list<absl::string_view> labels = {});

  // Asked at each scrape, by several threads at once; may not wait for anything that takes long.
  using Source = std::function<void(MetricSamples&)>;
  void AddSource(Source source);

  // -- From any thread

  // All of it in Prometheus' text format, version 0.0.4.
  std::string Text() const;

 private:
  // A counter or a histogram, as the metric's type says.
  struct Cell {
    Cell(Metric metric_in, std::vector<std::string> labels_in)
        : metric(metric_in), labels(std::move(labels_in)), histogram(SpecOf(metric).buckets) {}
    const Metric metric;
    const std::vector<std::string> labels;
    MetricCounter counter;
    MetricHistogram histogram;
  };
  Cell& FindOrAdd(Metric metric, MetricType type, std::initializer_list<absl::string_view> labels);

  const MetricSource program_;
  mutable Mutex mutex_;  // of the lists alone
  std::deque<Cell> cells_ ABSL_GUARDED_BY(mutex_);
  std::vector<Source> sources_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
