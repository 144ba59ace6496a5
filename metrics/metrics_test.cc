#include "metrics/metrics.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using testing::HasSubstr;

std::vector<std::string> LinesOf(const std::string& text, absl::string_view name) {
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, name)) lines.emplace_back(line);
  }
  return lines;
}

TEST(Metrics, ACounterIsThereBeforeItCounts) {
  Metrics metrics(MetricSource::kCoordinator);
  MetricCounter& counter = metrics.Counter(Metric::kRequestsAdmitted, {"belle"});
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_requests_admitted_total{model_name=\"belle\"} 0\n"));
  counter.Add();
  counter.Add(2);
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_requests_admitted_total{model_name=\"belle\"} 3\n"));
}

TEST(Metrics, TheSameLabelsAreTheSameCell) {
  Metrics metrics(MetricSource::kCoordinator);
  metrics.Counter(Metric::kRequestsAdmitted, {"a"}).Add();
  metrics.Counter(Metric::kRequestsAdmitted, {"a"}).Add();
  metrics.Counter(Metric::kRequestsAdmitted, {"b"}).Add();
  EXPECT_THAT(LinesOf(metrics.Text(), "bellwether_requests_admitted_total"),
              testing::UnorderedElementsAre("bellwether_requests_admitted_total{model_name=\"a\"} 2",
                                            "bellwether_requests_admitted_total{model_name=\"b\"} 1"));
}

TEST(Metrics, HelpAndTypeAreTheTables) {
  Metrics metrics(MetricSource::kCoordinator);
  metrics.Counter(Metric::kRequestsAdmitted, {"a"});
  const MetricSpec& spec = SpecOf(Metric::kRequestsAdmitted);
  EXPECT_THAT(metrics.Text(), HasSubstr(absl::StrCat("# HELP ", spec.name, " ", spec.help, "\n# TYPE ",
                                                     spec.name, " counter\n")));
}

TEST(Metrics, HistogramsCountUpToTheirBounds) {
  Metrics metrics(MetricSource::kCoordinator);
  MetricHistogram& histogram = metrics.Histogram(Metric::kRequestChoices, {"a"});  // bounds 1 2 4 8 16
  for (const double value : {1.0, 2.0, 2.0, 3.0, 17.0}) histogram.Observe(value);
  EXPECT_THAT(LinesOf(metrics.Text(), "bellwether_request_choices"),
              testing::ElementsAre("bellwether_request_choices_count{model_name=\"a\"} 5",
                                   "bellwether_request_choices_sum{model_name=\"a\"} 25",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"1\"} 1",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"2\"} 3",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"4\"} 4",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"8\"} 4",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"16\"} 4",
                                   "bellwether_request_choices_bucket{model_name=\"a\",le=\"+Inf\"} 5"));
}

TEST(Metrics, SourcesAreAskedAtEachScrape) {
  Metrics metrics(MetricSource::kCoordinator);
  double epoch = 0;
  metrics.AddSource([&epoch](MetricSamples& samples) { samples.Add(Metric::kEpoch, ++epoch); });
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_epoch 1\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_epoch 2\n"));
}

// Names of workers and models are whatever somebody calls them. What Prometheus reads stays a line a series.
TEST(Metrics, OddNamesStayOneLabel) {
  const std::vector<std::string> names = {"",
                                          "a\"b\\c",
                                          "new\nline",
                                          "bellwether_epoch 7\n",
                                          std::string("\xff\xfe\0\x01", 4),
                                          "Ünïcödé 模型",
                                          "{le=\"1\"} 5",
                                          std::string(5000, 'x')};
  Metrics metrics(MetricSource::kCoordinator);
  metrics.AddSource([&names](MetricSamples& samples) {
    for (const std::string& name : names) samples.Add(Metric::kWorkerUp, {name, name}, 1);
  });
  const std::string text = metrics.Text();
  EXPECT_EQ(ValidUtf8Prefix(text), text.size());
  EXPECT_EQ(LinesOf(text, "bellwether_worker_up{").size(), names.size());
  EXPECT_EQ(LinesOf(text, "").size(), names.size() + 3);  // help, type, and the empty rest
  EXPECT_LT(text.size(), 16000u);
  EXPECT_THAT(text, HasSubstr("worker=\"a\\\"b\\\\c\""));
}

TEST(Metrics, AFloodOfNamesIsCutOff) {
  Metrics metrics(MetricSource::kCoordinator);
  metrics.AddSource([](MetricSamples& samples) {
    for (size_t i = 0; i < kSeriesMax + 100; ++i) {
      samples.Add(Metric::kWorkerUp, {absl::StrCat("worker-", i), "host"}, 1);
    }
    samples.Add(Metric::kEpoch, 1);
  });
  const std::string text = metrics.Text();
  EXPECT_EQ(LinesOf(text, "bellwether_worker_up{").size(), kSeriesMax);
  EXPECT_THAT(text, HasSubstr("bellwether_epoch 1\n"));
}

// What the table does not know is a mistake of ours, however it got here.
TEST(MetricsDeathTest, TheTableHasTheLastWord) {
  Metrics metrics(MetricSource::kWorker);
  EXPECT_DEATH(metrics.Counter(Metric::kRequestsAdmitted, {"a"}), "Exports");      // the coordinator's
  EXPECT_DEATH(metrics.Histogram(Metric::kWorkerSteps, {"0", "0", "a"}), "type");  // a counter
  EXPECT_DEATH(metrics.Counter(Metric::kWorkerSteps, {"0", "a"}), "labels");       // it has three
  EXPECT_DEATH(metrics.Counter(Metric::kWorkerTime, {"0", "0", "a", "sleeping"}), "known");
}

// Who counts never waits for who reads: while one thread reads all the time, the others lose nothing.
TEST(Metrics, CountsAreExactWhileSomebodyReads) {
  constexpr int kThreads = 3, kTimes = 20000;
  Metrics metrics(MetricSource::kCoordinator);
  MetricCounter& counter = metrics.Counter(Metric::kRequestsAdmitted, {"a"});
  MetricHistogram& histogram = metrics.Histogram(Metric::kRequestChoices, {"a"});
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) EXPECT_FALSE(metrics.Text().empty());
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int time = 0; time < kTimes; ++time) {
        counter.Add();
        histogram.Observe(2);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  reader.join();
  EXPECT_EQ(counter.value(), kThreads * kTimes);
  EXPECT_THAT(metrics.Text(), HasSubstr(absl::StrCat("bellwether_request_choices_count{model_name=\"a\"} ",
                                                     kThreads * kTimes, "\n")));
}

}  // namespace
}  // namespace bellwether
