#pragma once

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/engine.h"
#include "coordinator/request_observer.h"
#include "metrics/metrics.h"

namespace bellwether {

// What requests tell: how many there are, how they end, how long they and their tokens take. Counts from any
// thread, and never waits.
class RequestMetrics {
 public:
  // `metrics` outlives this.
  RequestMetrics(Metrics* metrics, const std::string& model_name, const Clock* clock = Clock::Real());

  // Listens in on a request: what is returned passes all that it hears on to `observer`. This outlives it.
  std::shared_ptr<RequestObserver> Observe(const EngineRequest& request,
                                           std::shared_ptr<RequestObserver> observer);
  // A request ended before the engine heard of it.
  void CountRejected(const absl::Status& status);
  // The HTTP door has answered with that status.
  void CountHttpResponse(int status);

 private:
  class Observer;
  // A counter for each value that the table lists for the metric's label besides the model's name.
  class ByLabel {
   public:
    ByLabel(Metrics* metrics, Metric metric, const std::string& model_name);
    bool Has(absl::string_view value) const { return counters_.contains(value); }
    void Count(absl::string_view value) { counters_.at(value)->Add(); }

   private:
    absl::flat_hash_map<absl::string_view, MetricCounter*> counters_;
  };

  // Of whoever has one API key.
  struct ClientCounters {
    MetricCounter& requests;
    MetricCounter& prompt_tokens;
    MetricCounter& generated_tokens;
  };
  ClientCounters* CountersOf(const std::string& client);

  Metrics* const metrics_;
  const std::string model_name_;
  const Clock* const clock_;
  Mutex mutex_;
  absl::node_hash_map<std::string, ClientCounters> clients_ ABSL_GUARDED_BY(mutex_);  // by name
  ByLabel rejected_;
  ByLabel finished_;
  ByLabel http_responses_;
  MetricCounter& prompt_tokens_;
  MetricCounter& generated_tokens_;
  MetricHistogram& request_prompt_tokens_;
  MetricHistogram& request_generated_tokens_;
  MetricHistogram& request_choices_;
  MetricHistogram& time_to_first_token_;
  MetricHistogram& inter_token_latency_;
  MetricHistogram& time_per_output_token_;
  MetricHistogram& duration_;
  MetricHistogram& queue_time_;
  MetricHistogram& prefill_time_;
  MetricHistogram& decode_time_;
};

}  // namespace bellwether
