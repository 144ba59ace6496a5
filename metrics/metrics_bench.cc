// What counting costs where it happens, and what a scrape costs.

#include <string>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "metrics/metrics.h"

namespace bellwether {
namespace {

void BM_Count(benchmark::State& state) {
  Metrics metrics(MetricSource::kCoordinator);
  MetricCounter& counter = metrics.Counter(Metric::kGeneratedTokens, {"model"});
  for (auto _ : state) counter.Add();
}
BENCHMARK(BM_Count);

void BM_Observe(benchmark::State& state) {
  Metrics metrics(MetricSource::kCoordinator);
  MetricHistogram& histogram = metrics.Histogram(Metric::kInterTokenLatency, {"model"});
  for (auto _ : state) histogram.Observe(0.02);
}
BENCHMARK(BM_Observe);

// All that a coordinator exports, with as many workers: the histograms, and its samples of each worker.
void BM_Scrape(benchmark::State& state) {
  const auto workers = state.range(0);
  Metrics metrics(MetricSource::kCoordinator);
  for (const MetricSpec& spec : kMetricTable) {
    if (spec.type == MetricType::kHistogram) metrics.Histogram(spec.id, {"model"}).Observe(0.02);
  }
  metrics.AddSource([workers](MetricSamples& samples) {
    for (int64_t i = 0; i < workers; ++i) {
      const std::string name = absl::StrCat("host-", i / 8, "/", i), rank = absl::StrCat(i % 8),
                        stage = absl::StrCat(i / 8);
      samples.Add(Metric::kRankInfo, {stage, rank, name, "host", "cpu", "avx512", "0-4"}, 1);
      samples.Add(Metric::kPlanStepReadTime, {stage, rank, name}, 0.01);
      samples.Add(Metric::kWaitedForTime, {stage, rank, name}, 12.5);
      samples.Add(Metric::kWorkerUp, {name, "host"}, 1);
      samples.Add(Metric::kWorkerHeartbeatAge, {name, "host"}, 0.25);
      for (const absl::string_view state_name : LabelValuesOf(Metric::kWorkerState, "state")) {
        samples.Add(Metric::kWorkerState, {name, state_name}, 0);
      }
    }
  });
  size_t bytes = 0;
  for (auto _ : state) bytes += metrics.Text().size();
  state.counters["bytes"] = static_cast<double>(bytes) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_Scrape)->Arg(0)->Arg(64)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bellwether
