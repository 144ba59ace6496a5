#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/clock.h"
#include "common/shared_secret.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/step_report.h"

namespace grpc {
class Service;
}

namespace bellwether {

// The Cluster service of cluster.proto: the streams that workers open, the thread that runs the ClusterView,
// and the way of steps and results between the engine and the workers.
class ClusterService {
 public:
  struct Options {
    ClusterViewOptions view;
    ClusterView::PlanFunction plan;
    int32_t context_tokens = 0;  // for assignments
    int32_t vocab = 0;           // token ids are below it
    int32_t workers_max = kWorkersMax;
    SharedSecret join_secret;  // that workers must know
    const Clock* clock = Clock::Real();
    // To the engine: LayoutUp, LayoutClosing, LayoutDown, StepFinished.
    std::function<void(Event)> post;
    std::function<bool()> idle;                 // whether no request is running; asked while a layout serves
    std::function<void(bool)> serving_changed;  // for health; from the service's thread
    // How long a step took; from gRPC's threads, may not wait.
    std::function<void(const StepTime&)> step_took = [](const StepTime&) {};
  };
  explicit ClusterService(Options options);
  ~ClusterService();  // after the gRPC server has shut down

  // To register with a server; lives as long as this.
  grpc::Service* service();

  // From the engine's thread. A step of an epoch that has ended goes nowhere.
  void SendStep(const Step& step);
  void FailEpoch(Epoch epoch, const absl::Status& reason);

  // What GetModel tells.
  struct Status {
    bool serving = false;
    std::string layout;
    std::string kernel_level;
    int32_t kv_blocks = 0;
    std::string not_serving_reason;
    bool refused = false;           // by the planner, or a worker that cannot load: waiting does not help
    uint64_t loading_progress = 0;  // as in ClusterView
  };
  Status status() const;
  // At most a tick old.
  std::shared_ptr<const ClusterSnapshot> snapshot() const;

  // Ends all streams, so that the server can shut down.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bellwether
