#include "coordinator/request_metrics.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// Keys come and go while the file is edited; series stay.
constexpr size_t kClientsMax = 100;
constexpr char kOthers[] = "other";

// Of a request that was not taken, as the table has it.
absl::string_view RejectedReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
      return "invalid";
    case absl::StatusCode::kResourceExhausted:
      return "overloaded";
    case absl::StatusCode::kUnavailable:
      return "not_serving";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return "unauthenticated";
    default:
      return "error";
  }
}

// Of one that was taken and failed.
absl::string_view FailedReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    default:
      return "error";
  }
}

}  // namespace

RequestMetrics::ByLabel::ByLabel(Metrics* metrics, Metric metric, const std::string& model_name) {
  for (const absl::string_view value : LabelValuesOf(metric, SpecOf(metric).labels.back())) {
    counters_[value] = &metrics->Counter(metric, {model_name, value});
  }
}

RequestMetrics::RequestMetrics(Metrics* metrics, const std::string& model_name, const Clock* clock)
    : metrics_(metrics),
      model_name_(model_name),
      clock_(clock),
      rejected_(metrics, Metric::kRequestsRejected, model_name),
      finished_(metrics, Metric::kRequestsFinished, model_name),
      http_responses_(metrics, Metric::kHttpResponses, model_name),
      prompt_tokens_(metrics->Counter(Metric::kPromptTokens, {model_name})),
      generated_tokens_(metrics->Counter(Metric::kGeneratedTokens, {model_name})),
      request_prompt_tokens_(metrics->Histogram(Metric::kRequestPromptTokens, {model_name})),
      request_generated_tokens_(metrics->Histogram(Metric::kRequestGeneratedTokens, {model_name})),
      request_choices_(metrics->Histogram(Metric::kRequestChoices, {model_name})),
      time_to_first_token_(metrics->Histogram(Metric::kTimeToFirstToken, {model_name})),
      inter_token_latency_(metrics->Histogram(Metric::kInterTokenLatency, {model_name})),
      time_per_output_token_(metrics->Histogram(Metric::kTimePerOutputToken, {model_name})),
      duration_(metrics->Histogram(Metric::kRequestDuration, {model_name})),
      queue_time_(metrics->Histogram(Metric::kRequestQueueTime, {model_name})),
      prefill_time_(metrics->Histogram(Metric::kRequestPrefillTime, {model_name})),
      decode_time_(metrics->Histogram(Metric::kRequestDecodeTime, {model_name})) {
  CountersOf(kOthers);  // so that there is a series before there is a client
}

void RequestMetrics::CountRejected(const absl::Status& status) { rejected_.Count(RejectedReason(status)); }

void RequestMetrics::CountHttpResponse(int status) {
  const std::string code = absl::StrCat(status);
  http_responses_.Count(http_responses_.Has(code) ? code : kOthers);
}

RequestMetrics::ClientCounters* RequestMetrics::CountersOf(const std::string& client) {
  if (client.empty()) return nullptr;  // nobody is asked who he is
  MutexLock lock(&mutex_);
  if (const auto known = clients_.find(client); known != clients_.end()) return &known->second;
  const std::string name = clients_.size() <= kClientsMax ? client : kOthers;  // which is one of them
  const auto counter = [&](Metric metric) -> MetricCounter& {
    return metrics_->Counter(metric, {model_name_, name});
  };
  const ClientCounters counters{counter(Metric::kClientRequests), counter(Metric::kClientPromptTokens),
                                counter(Metric::kClientGeneratedTokens)};
  return &clients_.try_emplace(name, counters).first->second;
}

// On the engine's thread, but for its making.
class RequestMetrics::Observer : public RequestObserver {
 public:
  Observer(RequestMetrics* metrics, const EngineRequest& request, std::shared_ptr<RequestObserver> next)
      : metrics_(metrics),
        next_(std::move(next)),
        arrived_(metrics->clock_->Now()),
        client_(metrics->CountersOf(request.client)),
        score_(request.score),
        prompt_tokens_(static_cast<double>(request.prompt.size())),
        last_token_(std::max(0, request.choices)) {}

  void OnAccepted() override { next_->OnAccepted(); }

  void OnTokens(TokenChunk chunk) override {
    if (!chunk.tokens.empty()) CountTokens(chunk);
    cut_short_ |= chunk.finish == FinishReason::kLength;
    next_->OnTokens(std::move(chunk));
  }

  void OnInterrupted(const std::string& reason) override { next_->OnInterrupted(reason); }

  void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob> best) override {
    CountPrefill();
    next_->OnScores(std::move(logprobs), std::move(best));
  }

  void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override {
    if (usage.admitted) {
      CountEnd(status, usage);
    } else {
      metrics_->CountRejected(status);
    }
    next_->OnDone(status, usage, seed);
  }

 private:
  void CountPrefill() {
    prefilled_ = true;
    metrics_->prompt_tokens_.Add(prompt_tokens_);
  }

  void CountTokens(const TokenChunk& chunk) {
    const absl::Duration now = metrics_->clock_->Now();
    if (!first_token_) {
      first_token_ = now;
      CountPrefill();
      metrics_->time_to_first_token_.Observe(absl::ToDoubleSeconds(now - arrived_));
    }
    std::optional<absl::Duration>& last = last_token_.at(chunk.choice);
    if (last) metrics_->inter_token_latency_.Observe(absl::ToDoubleSeconds(now - *last));
    last = now;
    longest_ = std::max(longest_, chunk.index + static_cast<int32_t>(chunk.tokens.size()));
    metrics_->generated_tokens_.Add(static_cast<double>(chunk.tokens.size()));
  }

  absl::string_view GoodReason() const {
    if (score_) return "score";
    return cut_short_ ? "length" : "stop";
  }

  void CountEnd(const absl::Status& status, const Usage& usage) {
    metrics_->finished_.Count(status.ok() ? GoodReason() : FailedReason(status));
    if (client_ != nullptr) {
      client_->requests.Add();
      if (prefilled_) client_->prompt_tokens.Add(prompt_tokens_);
      client_->generated_tokens.Add(usage.generated_tokens);
    }
    const absl::Duration now = metrics_->clock_->Now();
    metrics_->duration_.Observe(absl::ToDoubleSeconds(now - arrived_));
    metrics_->queue_time_.Observe(absl::ToDoubleSeconds(usage.queued));
    metrics_->request_prompt_tokens_.Observe(prompt_tokens_);
    metrics_->request_generated_tokens_.Observe(usage.generated_tokens);
    metrics_->request_choices_.Observe(static_cast<double>(last_token_.size()));
    if (!first_token_) return;
    metrics_->prefill_time_.Observe(absl::ToDoubleSeconds(usage.time_to_first_token - usage.queued));
    metrics_->decode_time_.Observe(absl::ToDoubleSeconds(now - *first_token_));
    if (longest_ < 2) return;
    const absl::Duration last = std::max_element(last_token_.begin(), last_token_.end())->value_or(now);
    metrics_->time_per_output_token_.Observe(absl::ToDoubleSeconds(last - *first_token_) / (longest_ - 1));
  }

  RequestMetrics* const metrics_;
  const std::shared_ptr<RequestObserver> next_;
  const absl::Duration arrived_;
  ClientCounters* const client_;  // null: nobody is asked who he is
  const bool score_;
  const double prompt_tokens_;
  std::optional<absl::Duration> first_token_;              // of any choice
  std::vector<std::optional<absl::Duration>> last_token_;  // by choice
  int32_t longest_ = 0;                                    // tokens of the choice with the most
  bool cut_short_ = false;                                 // a choice met its limit
  bool prefilled_ = false;                                 // the prompt has been computed
};

std::shared_ptr<RequestObserver> RequestMetrics::Observe(const EngineRequest& request,
                                                         std::shared_ptr<RequestObserver> observer) {
  return std::make_shared<Observer>(this, request, std::move(observer));
}

}  // namespace bellwether
