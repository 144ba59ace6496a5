// What operators see of a live cluster: every metric of the table, probes, and where Prometheus finds the
// workers.

#include <signal.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "http/testing/raw_client.h"
#include "metrics/testing/exposition.h"
#include "tests/e2e/test_cluster.h"

namespace bellwether {
namespace {

using ::testing::ContainerEq;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kModel[] = "random:llama?layers=4,positions=60000:fp32";
constexpr int kVocab = 160;
const GenerationOptions kShort{.max_tokens = 8, .temperature = 0, .ignore_eos = true};

std::string Request(const std::string& address, const std::string& path) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\nConnection: close\r\n\r\n");
}

struct Answer {
  std::string head, body;
};
Answer Get(const std::string& address, const std::string& path) {
  RawClient client(address);
  client.Send(Request(address, path));
  std::string all = client.ReadAll();
  const size_t head = all.find("\r\n\r\n");
  if (head == std::string::npos) return {};
  return {all.substr(0, head), all.substr(head + 4)};
}

class MetricsTest : public ::testing::Test {
 protected:
  void Start(int ranks, int stages) {
    auto cluster =
        TestCluster::Start({.model = kModel, .tensor_parallel = ranks, .pipeline_parallel = stages});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }
  std::string Metrics() const { return Get(cluster_->metrics_address(), "/metrics").body; }
  // Everything that Prometheus is told to ask.
  std::vector<std::string> Targets() const {
    std::vector<std::string> targets;
    const auto groups = ParseJson(Get(cluster_->metrics_address(), "/http_sd").body);
    if (!groups.ok()) return targets;
    for (const Json& group : *groups) {
      for (const Json& target : group["targets"]) targets.push_back(target.get<std::string>());
    }
    return targets;
  }
  void Generate() {
    const CollectedAnswer answer =
        bellwether::Generate(cluster_->client(), Ids(SomeTokens(40, 1, kVocab)), kShort);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
  }
  // Of the first series whose line has both; -1 if there is none.
  static double Value(const std::string& text, const std::string& name, const std::string& label = "") {
    for (const std::string& line : SeriesIn(text)) {
      if (absl::StartsWith(line, name) && absl::StrContains(line, label))
        return std::stod(line.substr(line.rfind(' ')));
    }
    return -1;
  }
  // Until the text of the coordinator's metrics has it.
  bool WaitFor(const std::string& line) const {
    const absl::Duration end = Clock::Real()->Now() + kPatience;
    while (Clock::Real()->Now() < end) {
      if (absl::StrContains(Metrics(), line)) return true;
    }
    return false;
  }

  std::unique_ptr<TestCluster> cluster_;
};

TEST_F(MetricsTest, EveryMetricOfTheTableIsExported) {
  Start(/*ranks=*/2, /*stages=*/2);
  Generate();
  std::set<std::string> seen, expected;
  ASSERT_EQ(Targets().size(), 5u) << cluster_->Logs();
  for (const std::string& target : Targets()) {
    const Answer answer = Get(target, "/metrics");
    EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 200 "));
    seen.merge(MetricsIn(answer.body));
  }
  for (const MetricSpec& spec : kMetricTable) expected.emplace(spec.name);
  EXPECT_THAT(seen, ContainerEq(expected));
}

TEST_F(MetricsTest, NumbersAreThoseOfWhatWasDone) {
  Start(/*ranks=*/2, /*stages=*/2);
  for (int i = 0; i < 3; ++i) Generate();
  const std::string text = Metrics();
  const auto value = [&](const std::string& name) { return Value(text, "bellwether_" + name); };
  EXPECT_EQ(value("requests_admitted_total"), 3);
  EXPECT_EQ(value("prompt_tokens_total"), 120);
  EXPECT_EQ(value("generated_tokens_total"), 24);
  EXPECT_EQ(value("time_to_first_token_seconds_count"), 3);
  EXPECT_EQ(value("inter_token_latency_seconds_count"), 21);
  EXPECT_EQ(value("request_choices_sum"), 3);
  EXPECT_EQ(value("workers_joined"), 4);
  EXPECT_EQ(value("serving"), 1);
  EXPECT_GE(value("step_duration_seconds_count"), 24);
  EXPECT_GT(value("plan_tokens_per_second"), 0);
}

// Each worker says where its time went.
TEST_F(MetricsTest, WorkersTellWhereTheirTimeGoes) {
  Start(/*ranks=*/2, /*stages=*/2);
  Generate();
  int workers = 0;
  for (const std::string& target : Targets()) {
    const std::string text = Get(target, "/metrics").body;
    if (!absl::StrContains(text, "bellwether_worker_steps_total")) continue;
    ++workers;
    EXPECT_GE(Value(text, "bellwether_worker_steps_total"), 8);
    EXPECT_GT(Value(text, "bellwether_worker_seconds_total", "part=\"compute\""), 0);
    EXPECT_GT(Value(text, "bellwether_worker_seconds_total", "part=\"collective_wait\""), 0);
    EXPECT_GT(Value(text, "bellwether_worker_seconds_total", "part=\"idle\""), 0);
    EXPECT_GT(Value(text, "bellwether_link_sent_bytes_total", "kind=\"collective\""), 0);
    EXPECT_GT(Value(text, "bellwether_weights_resident_bytes"), 0);
    EXPECT_GT(Value(text, "bellwether_kv_cache_bytes"), 0);
  }
  EXPECT_EQ(workers, 4);
}

TEST_F(MetricsTest, ALostWorkerIsToldAndCounted) {
  Start(/*ranks=*/2, /*stages=*/1);
  EXPECT_THAT(Get(cluster_->metrics_address(), "/readyz").head, StartsWith("HTTP/1.1 200 "));
  const std::string victim = TestCluster::WorkerName(1);
  cluster_->worker(1).Signal(SIGKILL);
  EXPECT_TRUE(WaitFor("} 0\n# HELP bellwether_worker_state"))
      << Metrics();  // the last of bellwether_worker_up
  EXPECT_TRUE(WaitFor("bellwether_regroups_total{cause=\"worker_lost\"} 1\n")) << Metrics();
  const Answer ready = Get(cluster_->metrics_address(), "/readyz");
  EXPECT_THAT(ready.head, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(ready.body, HasSubstr(victim));
  EXPECT_THAT(Get(cluster_->metrics_address(), "/healthz").head, StartsWith("HTTP/1.1 200 "));
  ASSERT_TRUE(cluster_->StartWorker(1).ok());
  ASSERT_TRUE(cluster_->WaitUntilServing().ok()) << cluster_->Logs();
  EXPECT_TRUE(WaitFor("bellwether_epoch 2\n")) << Metrics();
  EXPECT_EQ(Targets().size(), 3u);
}

// Whoever asks and does not read the answer holds up nobody.
TEST_F(MetricsTest, AScrapeThatIsNeverReadHoldsUpNoStep) {
  Start(/*ranks=*/1, /*stages=*/1);
  std::vector<RawClient> silent;
  for (int i = 0; i < 20; ++i) {
    silent.emplace_back(cluster_->metrics_address());
    // More than lies in sockets by itself: some 30 KB each.
    std::string requests;
    for (int each = 0; each < 500; ++each) requests += "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    silent.back().Send(requests);  // it may be cut off before the last
  }
  Generate();
  EXPECT_THAT(Metrics(), HasSubstr("bellwether_requests_finished_total"));
}

// Requests, good and bad, with names as odd as clients like: the number of series stays.
TEST_F(MetricsTest, AFloodOfOddRequestsMakesNoSeries) {
  Start(/*ranks=*/1, /*stages=*/1);
  Generate();
  const size_t before = SeriesIn(Metrics()).size();
  for (int i = 0; i < 50; ++i) {
    const CallOptions call{.request_id = absl::StrCat("odd-", i, "{}=\"'\\,")};
    bellwether::Generate(cluster_->client(), Ids({1, 2 + i % 3}), kShort, call);
    bellwether::Generate(cluster_->client(), Ids({-1}), kShort, call);
    bellwether::Generate(cluster_->client(), Text(absl::StrCat("no tokenizer here ", i)), kShort, call);
  }
  const std::string text = Metrics();
  EXPECT_EQ(SeriesIn(text).size(), before);
  EXPECT_GE(Value(text, "bellwether_requests_rejected_total", "reason=\"invalid\""), 100);
}

}  // namespace
}  // namespace bellwether
