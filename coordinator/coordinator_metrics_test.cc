#include "coordinator/coordinator_metrics.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/cluster_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/testing/exposition.h"

namespace bellwether {
namespace {

using ::testing::ContainerEq;
using ::testing::HasSubstr;
using ::testing::Not;

// `stages` of `ranks`, all workers there.
std::shared_ptr<ClusterSnapshot> Cluster(int stages, int ranks) {
  auto layout = std::make_shared<ClusterLayout>();
  layout->plan.kernel_levels.assign(stages, "avx2");
  layout->plan.decode_tokens_per_second = 10;
  layout->plan.pipeline_tokens_per_second = 20;
  layout->plan.layout.stages.resize(stages);
  auto cluster = std::make_shared<ClusterSnapshot>();
  for (int stage = 0; stage < stages; ++stage) {
    layout->plan.layout.stages[stage].layers = {stage, stage + 1};
    layout->plan.layout.stages[stage].ranks.resize(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      const std::string name = absl::StrCat("w", stage, "-", rank);
      JoiningWorker worker{.inventory = {.name = name, .host = "h", .threads = 4}};
      layout->members.push_back({.worker = worker, .stage = stage, .rank = rank});
      layout->plan.workers.push_back({.stage = stage, .rank = rank, .read_seconds = 0.01 * (1 + rank)});
      cluster->workers.push_back({.name = name, .host = "h", .state = WorkerState::kReady});
      cluster->waited_for.push_back(stage + rank);
    }
  }
  cluster->serving = true;
  cluster->workers_wanted = stages * ranks;
  cluster->layout = std::move(layout);
  return cluster;
}

class CoordinatorMetricsTest : public ::testing::Test {
 protected:
  CoordinatorMetrics::Options Options(const std::string& model = "m") {
    CoordinatorMetrics::Options options;
    options.build_id = "build";
    options.model = {.name = model, .id = "id", .architecture = "llama", .weights = "bf16"};
    options.engine = [this] { return engine_; };
    options.cluster = [this] { return cluster_; };
    return options;
  }

  EngineSnapshot engine_{.serving = true, .requests_waiting = 3, .kv_blocks_total = 8, .kv_blocks_used = 2};
  std::shared_ptr<const ClusterSnapshot> cluster_ = Cluster(2, 2);
};

TEST_F(CoordinatorMetricsTest, ExportsAllThatTheTableGivesIt) {
  const CoordinatorMetrics metrics(Options());
  EXPECT_THAT(MetricsIn(metrics.Text()), ContainerEq(MetricsOf(MetricSource::kCoordinator)));
}

TEST_F(CoordinatorMetricsTest, TellsWhatTheEngineSays) {
  const CoordinatorMetrics metrics(Options());
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_requests_waiting{model_name=\"m\"} 3\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_kv_cache_usage_ratio{model_name=\"m\"} 0.25\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_cache_config_info{model_name=\"m\",block_size=\"32\","
                                        "num_gpu_blocks=\"8\"} 1\n"));
  engine_.serving = false;
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_kv_blocks{model_name=\"m\"} 0\n"));
}

TEST_F(CoordinatorMetricsTest, TellsOfThePlanAndItsLimit) {
  const CoordinatorMetrics metrics(Options());
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("bellwether_plan_tokens_per_second{concurrency=\"one_sequence\"} 10\n"));
  // A step reads 0.02 s in each stage, as its slowest rank does.
  EXPECT_THAT(text, HasSubstr("bellwether_plan_limit_tokens_per_second{concurrency=\"one_sequence\"} 25\n"));
  EXPECT_THAT(
      text,
      HasSubstr("bellwether_plan_limit_tokens_per_second{concurrency=\"one_sequence_per_stage\"} 50\n"));
  EXPECT_THAT(text, HasSubstr("bellwether_layout_cores 16\n"));
  EXPECT_THAT(text,
              HasSubstr("bellwether_waited_for_seconds_total{stage=\"1\",rank=\"1\",worker=\"w1-1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("layers=\"1-1\"} 1\n"));
}

TEST_F(CoordinatorMetricsTest, ALostWorkerIsDown) {
  auto cluster = std::make_shared<ClusterSnapshot>(*cluster_);
  cluster->layout = nullptr;
  cluster->waited_for.clear();
  cluster->workers_short = 1;
  cluster->missing.push_back(cluster->workers.back());
  cluster->workers.pop_back();
  cluster_ = cluster;
  const CoordinatorMetrics metrics(Options());
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_worker_up{worker=\"w1-1\",host=\"h\"} 0\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_worker_up{worker=\"w0-0\",host=\"h\"} 1\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_workers_short 1\n"));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("bellwether_rank_info")));
}

TEST_F(CoordinatorMetricsTest, CountsStepsAndTheirTokens) {
  CoordinatorMetrics metrics(Options());
  metrics.CountStep({.entries = {{.count = 30}, {.count = 1}}});
  metrics.CountStepTime(
      {.took = absl::Milliseconds(250), .busy = absl::Milliseconds(200), .planned = absl::Milliseconds(150)});
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_step_tokens_sum{model_name=\"m\"} 31\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_step_duration_seconds_sum{model_name=\"m\"} 0.25\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_step_busy_seconds_total{model_name=\"m\"} 0.2\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_step_planned_seconds_total{model_name=\"m\"} 0.15\n"));
}

TEST_F(CoordinatorMetricsTest, ThePlanForBatchesIsTold) {
  auto layout = std::make_shared<ClusterLayout>(*cluster_->layout);
  layout->plan.batch_rates = {{.sequences = 16, .tokens_per_second = 40}};
  auto cluster = std::make_shared<ClusterSnapshot>(*cluster_);
  cluster->layout = std::move(layout);
  cluster_ = std::move(cluster);
  const CoordinatorMetrics metrics(Options());
  EXPECT_THAT(metrics.Text(), HasSubstr("bellwether_plan_tokens_per_second{concurrency=\"16\"} 40\n"));
}

// The number of series follows the layout and nothing that clients can do: not their requests, not their
// errors, not what they call themselves or the model.
TEST_F(CoordinatorMetricsTest, RequestsMakeNoSeries) {
  CoordinatorMetrics metrics(Options("odd \"name\"\n\xff"));
  const size_t before = SeriesIn(metrics.Text()).size();
  class Nobody : public RequestObserver {
    void OnAccepted() override {}
    void OnTokens(TokenChunk) override {}
    void OnInterrupted(const std::string&) override {}
    void OnScores(std::vector<float>, std::vector<TokenLogprob>) override {}
    void OnDone(const absl::Status&, const Usage&, uint64_t) override {}
  };
  for (int i = 0; i < 1000; ++i) {
    const auto observer =
        metrics.requests().Observe({.prompt = {1}, .choices = 1 + i % 16}, std::make_shared<Nobody>());
    observer->OnTokens({.choice = 0, .tokens = {i}});
    const absl::Status status(static_cast<absl::StatusCode>(i % 20), absl::StrCat("client ", i, " \"\n\xff"));
    observer->OnDone(status, {.admitted = i % 2 == 0}, 0);
    metrics.requests().CountRejected(status);
  }
  EXPECT_EQ(SeriesIn(metrics.Text()).size(), before);
}

TEST_F(CoordinatorMetricsTest, WorkersMakeAFixedNumberOfSeriesEach) {
  cluster_ = Cluster(1, 1);
  const CoordinatorMetrics metrics(Options());
  const size_t one = SeriesIn(metrics.Text()).size();
  cluster_ = Cluster(1, 2);
  const size_t two = SeriesIn(metrics.Text()).size();
  cluster_ = Cluster(8, 8);
  EXPECT_EQ(SeriesIn(metrics.Text()).size(), one + 63 * (two - one));
  EXPECT_LE(two - one, 12u);
}

}  // namespace
}  // namespace bellwether
