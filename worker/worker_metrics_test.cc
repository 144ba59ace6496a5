#include "worker/worker_metrics.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/testing/exposition.h"

namespace bellwether {
namespace {

using ::testing::ContainerEq;
using ::testing::HasSubstr;

class WorkerMetricsTest : public ::testing::Test {
 protected:
  WorkerMetricsTest() {
    snapshot_.name = "a";
    snapshot_.progress.last_stage = 1;
    snapshot_.progress.last_rank = 0;
    snapshot_.progress.waits = {{.index = 3, .stage = 1, .rank = 1, .waited = absl::Seconds(4)}};
    StepMeter::Reading& times = snapshot_.progress.times;
    times.parts[static_cast<size_t>(StepPart::kAway)] = absl::Seconds(100);
    times.parts[static_cast<size_t>(StepPart::kCompute)] = absl::Seconds(2);
    times.parts[static_cast<size_t>(StepPart::kIdle)] = absl::Seconds(7);
    times.sent_bytes = {10, 20};
  }

  WorkerSession::Snapshot snapshot_;
  const WorkerMetrics metrics_{"build", [this] { return snapshot_; }};
};

TEST_F(WorkerMetricsTest, ExportsAllThatTheTableGivesIt) {
  EXPECT_THAT(MetricsIn(metrics_.Text()), ContainerEq(MetricsOf(MetricSource::kWorker)));
}

TEST_F(WorkerMetricsTest, TellsWhereItsTimeGoes) {
  const std::string text = metrics_.Text();
  const std::string labels = "{stage=\"1\",rank=\"0\",worker=\"a\",";
  EXPECT_THAT(text, HasSubstr("bellwether_worker_seconds_total" + labels + "part=\"compute\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("bellwether_worker_seconds_total" + labels + "part=\"idle\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("bellwether_link_sent_bytes_total" + labels + "kind=\"pipeline\"} 20\n"));
  EXPECT_THAT(text, HasSubstr("bellwether_peer_wait_seconds_total" + labels +
                              "peer_stage=\"1\",peer_rank=\"1\"} 4\n"));
}

// Its name is whatever the command line says.
TEST_F(WorkerMetricsTest, OddNamesAreLabels) {
  const size_t before = SeriesIn(metrics_.Text()).size();
  snapshot_.name = "a\"} 1\nbellwether_epoch 7\n\xff";
  EXPECT_EQ(SeriesIn(metrics_.Text()).size(), before);
}

TEST_F(WorkerMetricsTest, BeforeItsFirstLayoutAWorkerHasNoPlace) {
  snapshot_ = {.name = "a"};
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("bellwether_worker_steps_total{stage=\"\",rank=\"\",worker=\"a\"} 0\n"));
}

}  // namespace
}  // namespace bellwether
