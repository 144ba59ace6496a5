#pragma once

#include <functional>
#include <string>

#include "metrics/metrics.h"
#include "worker/session.h"

namespace bellwether {

// A worker's numbers for Prometheus, made of what its session tells when somebody asks: its steps know
// nothing of it. From any thread.
class WorkerMetrics {
 public:
  // `snapshot`: of the session, asked at every scrape as long as this lives.
  WorkerMetrics(std::string build_id, std::function<WorkerSession::Snapshot()> snapshot);

  // Prometheus' text format.
  std::string Text() const { return metrics_.Text(); }

 private:
  Metrics metrics_{MetricSource::kWorker};
};

}  // namespace bellwether
