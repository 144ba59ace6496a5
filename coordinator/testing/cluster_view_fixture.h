#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/cluster_view.h"
#include "gtest/gtest.h"

// What the tests of ClusterView share.

namespace bellwether {

// One stage with as many ranks as there are workers.
inline absl::StatusOr<Plan> PlanRanks(absl::Span<const WorkerInventory> workers,
                                      const std::vector<std::string>& kernel_levels) {
  Plan plan;
  plan.layout.stages.resize(1);
  for (size_t i = 0; i < workers.size(); ++i) {
    plan.layout.stages[0].ranks.emplace_back();
    plan.workers.push_back({.inventory = i, .stage = 0, .rank = static_cast<int>(i)});
  }
  plan.kernel_levels = {kernel_levels.empty() ? workers[0].kernel_levels.back() : kernel_levels[0]};
  plan.kv_blocks = 8;
  return plan;
}

inline JoiningWorker Joining(const std::string& name) {
  return {.protocol_version = kClusterProtocolVersion,
          .build_id = "build",
          .inventory = {.name = name, .host = "h", .kernel_levels = {"portable", "avx2"}},
          .model_id = "model"};
}

class ClusterViewTest : public ::testing::Test {
 protected:
  static ClusterViewOptions Options() {
    return {.workers_wanted = 2,
            .build_id = "build",
            .model_id = "model",
            .model_name = "tiny",
            .step_deadline = absl::Seconds(10)};
  }

  void Send(const ClusterEvent& event) { actions_ = view_->Handle(event, now_); }
  void After(absl::Duration time, const ClusterEvent& event) {
    now_ += time;
    Send(event);
  }
  template <typename Action>
  std::vector<Action> All() const {
    std::vector<Action> found;
    for (const ClusterAction& action : actions_) {
      if (const Action* it = std::get_if<Action>(&action)) found.push_back(*it);
    }
    return found;
  }
  template <typename Action>
  bool Has() const {
    return !All<Action>().empty();
  }

  void Join(uint64_t id, const std::string& name) { Send(WorkerJoined{{id}, Joining(name)}); }
  void Beat(uint64_t id, WorkerProgress progress = {}) { Send(WorkerBeat{{id}, progress}); }
  // Workers 1 (a) and 2 (b) serve.
  void Serve() {
    Join(1, "a");
    Join(2, "b");
    ASSERT_TRUE(Has<AssignLayout>());
    epoch_ = All<AssignLayout>()[0].layout->epoch;
    Send(WorkerReady{{1}, epoch_});
    ASSERT_FALSE(Has<StartServing>());
    Send(WorkerReady{{2}, epoch_});
    ASSERT_TRUE(Has<StartServing>());
    ASSERT_TRUE(view_->serving());
  }
  std::string DownReason() const {
    const auto down = All<StopServing>();
    return down.empty() ? "" : std::string(down[0].reason.message());
  }

  absl::Duration now_ = absl::Seconds(100);
  std::unique_ptr<ClusterView> view_ = std::make_unique<ClusterView>(Options(), PlanRanks);
  std::vector<ClusterAction> actions_;
  Epoch epoch_;
};

}  // namespace bellwether
