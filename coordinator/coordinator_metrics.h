#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/step.h"
#include "coordinator/cluster_snapshot.h"
#include "coordinator/engine.h"
#include "coordinator/request_metrics.h"
#include "coordinator/step_report.h"
#include "metrics/metrics.h"

namespace bellwether {

// A coordinator's numbers for Prometheus: what its requests and steps count as they go, and what the engine
// and the cluster say of themselves when somebody asks.
class CoordinatorMetrics {
 public:
  struct Options {
    std::string build_id;
    struct {
      std::string name, id, architecture, weights;
    } model;
    int32_t context_tokens = 0;
    int32_t sequences_max = 0;
    int32_t requests_waiting_max = 0;
    const Clock* clock = Clock::Real();
    // Asked at every scrape, by any thread, as long as this lives.
    std::function<EngineSnapshot()> engine;
    std::function<std::shared_ptr<const ClusterSnapshot>()> cluster;
  };
  explicit CoordinatorMetrics(Options options);

  RequestMetrics& requests() { return requests_; }
  void CountStep(const Step& step);
  void CountStepTime(const StepTime& time);

  // Prometheus' text format.
  std::string Text() const { return metrics_.Text(); }

 private:
  void AddEngine(MetricSamples& samples) const;
  void AddCluster(MetricSamples& samples) const;

  const Options options_;
  Metrics metrics_{MetricSource::kCoordinator};
  RequestMetrics requests_;
  MetricHistogram& step_duration_;
  MetricHistogram& step_tokens_;
  MetricCounter& step_busy_;
  MetricCounter& step_planned_;
};

}  // namespace bellwether
