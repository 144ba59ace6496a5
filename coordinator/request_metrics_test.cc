#include "coordinator/request_metrics.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Recorder : public RequestObserver {
 public:
  void OnAccepted() override { ++accepted; }
  void OnTokens(TokenChunk chunk) override { chunks.push_back(std::move(chunk)); }
  void OnInterrupted(const std::string& reason) override { interruptions.push_back(reason); }
  void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob>) override {
    scores = std::move(logprobs);
  }
  void OnDone(const absl::Status& status, const Usage&, uint64_t seed) override {
    ends.push_back({status, seed});
  }

  int accepted = 0;
  std::vector<TokenChunk> chunks;
  std::vector<std::string> interruptions;
  std::vector<float> scores;
  std::vector<std::pair<absl::Status, uint64_t>> ends;
};

class RequestMetricsTest : public ::testing::Test {
 protected:
  void Begin(int32_t choices = 1, bool score = false) {
    observer_ = requests_.Observe({.prompt = {1, 2, 3}, .score = score, .choices = choices}, recorder_);
  }
  void Token(int32_t choice, int32_t index, std::optional<FinishReason> finish = std::nullopt) {
    observer_->OnTokens({.choice = choice, .index = index, .tokens = {7}, .finish = finish});
  }
  void Done(const absl::Status& status = absl::OkStatus(), Usage usage = {.admitted = true}) {
    observer_->OnDone(status, usage, 5);
  }
  std::string Line(const std::string& name, const std::string& value) const {
    return absl::StrCat("bellwether_", name, "{model_name=\"m\"} ", value, "\n");
  }
  std::string Finished(const std::string& reason, int count) const {
    return absl::StrCat("bellwether_requests_finished_total{model_name=\"m\",reason=\"", reason, "\"} ",
                        count, "\n");
  }
  std::string Rejected(const std::string& reason, int count) const {
    return absl::StrCat("bellwether_requests_rejected_total{model_name=\"m\",reason=\"", reason, "\"} ",
                        count, "\n");
  }

  ManualClock clock_;
  Metrics metrics_{MetricSource::kCoordinator};
  RequestMetrics requests_{&metrics_, "m", &clock_};
  std::shared_ptr<Recorder> recorder_ = std::make_shared<Recorder>();
  std::shared_ptr<RequestObserver> observer_;
};

TEST_F(RequestMetricsTest, MeasuresWhatAUserFeels) {
  Begin();
  clock_.Advance(absl::Seconds(2));
  Token(0, 0);
  clock_.Advance(absl::Seconds(1));
  Token(0, 1);
  clock_.Advance(absl::Seconds(3));
  Token(0, 2, FinishReason::kStop);
  Done(absl::OkStatus(), {.admitted = true,
                          .generated_tokens = 3,
                          .queued = absl::Seconds(0.5),
                          .time_to_first_token = absl::Seconds(2)});
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(Line("time_to_first_token_seconds_sum", "2")));
  EXPECT_THAT(text, HasSubstr(Line("time_to_first_token_seconds_count", "1")));
  EXPECT_THAT(text, HasSubstr(Line("inter_token_latency_seconds_sum", "4")));
  EXPECT_THAT(text, HasSubstr(Line("inter_token_latency_seconds_count", "2")));
  EXPECT_THAT(text, HasSubstr(Line("time_per_output_token_seconds_sum", "2")));
  EXPECT_THAT(text, HasSubstr(Line("request_duration_seconds_sum", "6")));
  EXPECT_THAT(text, HasSubstr(Line("request_queue_time_seconds_sum", "0.5")));
  EXPECT_THAT(text, HasSubstr(Line("request_prefill_time_seconds_sum", "1.5")));
  EXPECT_THAT(text, HasSubstr(Line("request_decode_time_seconds_sum", "4")));
  EXPECT_THAT(text, HasSubstr(Line("prompt_tokens_total", "3")));
  EXPECT_THAT(text, HasSubstr(Line("generated_tokens_total", "3")));
  EXPECT_THAT(text, HasSubstr(Line("request_generated_tokens_sum", "3")));
  EXPECT_THAT(text, HasSubstr(Finished("stop", 1)));
}

// Once OnAccepted was kept back, and clients of HTTP waited for the head of their streams.
TEST_F(RequestMetricsTest, PassesEverythingOn) {
  Begin();
  observer_->OnAccepted();
  Token(0, 0, FinishReason::kStop);
  observer_->OnScores({-1, -2}, {});
  Done(absl::CancelledError("x"));
  EXPECT_EQ(recorder_->accepted, 1);
  ASSERT_EQ(recorder_->chunks.size(), 1u);
  EXPECT_EQ(recorder_->chunks[0].finish, FinishReason::kStop);
  EXPECT_EQ(recorder_->scores.size(), 2u);
  ASSERT_EQ(recorder_->ends.size(), 1u);
  EXPECT_TRUE(absl::IsCancelled(recorder_->ends[0].first));
  EXPECT_EQ(recorder_->ends[0].second, 5u);
}

// Time between tokens is a choice's own: choices take turns.
TEST_F(RequestMetricsTest, ChoicesHaveTimesOfTheirOwn) {
  Begin(/*choices=*/2);
  Token(0, 0);
  clock_.Advance(absl::Seconds(1));
  Token(1, 0);
  clock_.Advance(absl::Seconds(1));
  Token(0, 1, FinishReason::kLength);
  Token(1, 1, FinishReason::kStop);
  Done(absl::OkStatus(), {.admitted = true, .generated_tokens = 4});
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(Line("inter_token_latency_seconds_sum", "3")));
  EXPECT_THAT(text, HasSubstr(Line("inter_token_latency_seconds_count", "2")));
  EXPECT_THAT(text, HasSubstr(Line("time_to_first_token_seconds_count", "1")));
  EXPECT_THAT(text, HasSubstr(Line("request_choices_sum", "2")));
  EXPECT_THAT(text, HasSubstr(Finished("length", 1)));
  EXPECT_THAT(text, HasSubstr(Finished("stop", 0)));
}

TEST_F(RequestMetricsTest, ScoresHaveNoTokens) {
  Begin(1, /*score=*/true);
  observer_->OnScores({-1, -2}, {});
  Done();
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(Finished("score", 1)));
  EXPECT_THAT(text, HasSubstr(Line("prompt_tokens_total", "3")));
  EXPECT_THAT(text, HasSubstr(Line("time_to_first_token_seconds_count", "0")));
}

TEST_F(RequestMetricsTest, CountsHowRequestsFail) {
  const std::pair<absl::Status, std::string> ends[] = {{absl::CancelledError("c"), "cancelled"},
                                                       {absl::DeadlineExceededError("d"), "deadline"},
                                                       {absl::UnavailableError("worker lost"), "unavailable"},
                                                       {absl::InternalError("NaN"), "error"}};
  for (const auto& [status, reason] : ends) {
    Begin();
    Done(status);
    EXPECT_THAT(metrics_.Text(), HasSubstr(Finished(reason, 1)));
  }
}

TEST_F(RequestMetricsTest, ARejectedRequestIsNotFinished) {
  Begin();
  Done(absl::ResourceExhaustedError("full"), {.prompt_tokens = 3});
  requests_.CountRejected(absl::InvalidArgumentError("bad"));
  requests_.CountRejected(absl::OutOfRangeError("bad"));
  requests_.CountRejected(absl::UnavailableError("no workers"));
  requests_.CountRejected(absl::UnauthenticatedError("who?"));
  requests_.CountRejected(absl::CancelledError("gone"));
  requests_.CountRejected(absl::DeadlineExceededError("late"));
  requests_.CountRejected(absl::InternalError("oops"));
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(Rejected("overloaded", 1)));
  EXPECT_THAT(text, HasSubstr(Rejected("invalid", 2)));
  for (const char* reason : {"not_serving", "unauthenticated", "cancelled", "deadline", "error"}) {
    EXPECT_THAT(text, HasSubstr(Rejected(reason, 1)));
  }
  EXPECT_THAT(text, HasSubstr(Line("request_duration_seconds_count", "0")));
  EXPECT_THAT(text, HasSubstr(Finished("error", 0)));
}

std::string OfClient(const std::string& what, const std::string& client, int count) {
  return absl::StrCat("bellwether_client_", what, "_total{model_name=\"m\",client=\"", client, "\"} ", count,
                      "\n");
}

TEST_F(RequestMetricsTest, WhoHasAKeyIsCountedByItsName) {
  EXPECT_THAT(metrics_.Text(), HasSubstr(OfClient("requests", "other", 0)));
  for (const std::string client : {"team-a", "team-b", "team-a", ""}) {
    observer_ = requests_.Observe({.prompt = {1, 2, 3}, .choices = 1, .client = client}, recorder_);
    Token(0, 0, FinishReason::kStop);
    Done(absl::OkStatus(), {.admitted = true, .prompt_tokens = 3, .generated_tokens = 1});
  }
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(OfClient("requests", "team-a", 2)));
  EXPECT_THAT(text, HasSubstr(OfClient("prompt_tokens", "team-a", 6)));
  EXPECT_THAT(text, HasSubstr(OfClient("generated_tokens", "team-b", 1)));
  EXPECT_THAT(text, Not(HasSubstr("client=\"\"")));
  // What was given up before it was computed is nobody's.
  observer_ = requests_.Observe({.prompt = {1, 2, 3}, .choices = 1, .client = "team-a"}, recorder_);
  Done(absl::CancelledError("gone"));
  EXPECT_THAT(metrics_.Text(), HasSubstr(OfClient("requests", "team-a", 3)));
  EXPECT_THAT(metrics_.Text(), HasSubstr(OfClient("prompt_tokens", "team-a", 6)));
}

// The file of keys may be edited for ever while the program runs.
TEST_F(RequestMetricsTest, ManyNamesOfKeysAreNotManySeries) {
  for (int i = 0; i < 1000; ++i) {
    observer_ =
        requests_.Observe({.prompt = {1}, .choices = 1, .client = absl::StrCat("key-", i)}, recorder_);
    Done();
  }
  EXPECT_THAT(metrics_.Text(), HasSubstr(OfClient("requests", "key-99", 1)));
  EXPECT_THAT(metrics_.Text(), HasSubstr(OfClient("requests", "other", 900)));
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("key-100")));
}

TEST_F(RequestMetricsTest, AnswersOverHttpCountByTheirStatus) {
  for (const int status : {200, 200, 499, 418}) requests_.CountHttpResponse(status);
  const auto line = [](const std::string& code, int count) {
    return absl::StrCat("bellwether_http_responses_total{model_name=\"m\",code=\"", code, "\"} ", count,
                        "\n");
  };
  EXPECT_THAT(metrics_.Text(), HasSubstr(line("200", 2)));
  EXPECT_THAT(metrics_.Text(), HasSubstr(line("499", 1)));
  EXPECT_THAT(metrics_.Text(), HasSubstr(line("other", 1)));
}

}  // namespace
}  // namespace bellwether
