#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/defaults.h"
#include "common/ids.h"
#include "coordinator/cluster_snapshot.h"
#include "coordinator/known_weights.h"
#include "coordinator/planner.h"
#include "coordinator/worker_progress.h"
#include "model/checkpoint/read_options.h"
#include "model/weight_hash.h"

namespace bellwether {

// Who is there, what they were told, and whether they are well: a pure state machine, events in, actions out,
// times passed in. It collects workers until there are enough, plans a layout, waits until all have loaded
// it, and watches over it; when a worker is lost or stuck it ends the epoch, says who is to blame, and begins
// the next one as soon as enough workers are there again.

struct JoiningWorker {
  int32_t protocol_version = 0;
  std::string build_id;
  WorkerInventory inventory;
  std::string unix_socket;      // links: for peers on the same host
  std::string link_address;     // links: for others, may be empty
  std::string model_id;         // empty: the worker looks for the model that the assignment names
  ReadingText reading;          // the options that it reads the model with
  Epoch last_epoch;             // that it has seen: the next one is larger
  std::string metrics_address;  // host:port where its metrics are served; empty: nowhere
  bool metrics_tls = false;     // by TLS
};

// A layout in force or on its way: who does what.
struct ClusterLayout {
  struct Member {
    WorkerId id;
    JoiningWorker worker;
    int stage = 0;
    int rank = 0;
    bool keeps = false;  // it holds its weights already
  };
  Epoch epoch;
  Plan plan;
  std::vector<Member> members;  // in the layout's flat order, as plan.workers
  bool other_bits = false;      // than the layout that served last: another kernel level computes a layer
  int short_of = 0;             // workers that are wanted, and that it was planned without
  absl::Duration step_deadline;
};

// Events.
struct WorkerJoined {
  WorkerId id;
  JoiningWorker worker;
};
struct WorkerLost {
  WorkerId id;
  absl::Status reason;
};  // its stream is over
struct WorkerBeat {
  WorkerId id;
  WorkerProgress progress;
};
struct WorkerReady {
  WorkerId id;
  Epoch epoch;
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  std::vector<WeightHash> hashes;  // of all that it has loaded
};
// `blamed`: name of the peer that is to blame; empty if it is the worker itself, or a peer that it cannot
// name.
struct WorkerFailed {
  WorkerId id;
  Epoch epoch;
  absl::Status reason;
  std::string blamed;
  bool of_some_peer = false;
};
// It was told to stop, and waits to be let go.
struct WorkerLeaving {
  WorkerId id;
};
// The engine can make nothing of this epoch's results.
struct EpochFailed {
  Epoch epoch;
  absl::Status reason;
};
// Time has passed; comes several times a second. Also says how the steps are getting on.
struct ClusterTick {
  int32_t steps_outstanding = 0;
  bool idle = true;                 // no request is running
  absl::Duration last_step_change;  // when a step was last sent to idle workers or a result last came
};
using ClusterEvent = std::variant<WorkerJoined, WorkerLost, WorkerBeat, WorkerReady, WorkerFailed,
                                  WorkerLeaving, EpochFailed, ClusterTick>;

// Actions.
struct AcceptWorker {
  WorkerId id;
  std::string name;  // that it has from now on
};
struct RefuseWorker {
  WorkerId id;
  std::string reason;
  bool start_afresh = false;
  bool for_now = false;
};  // for good: the worker ends and says so; unless it may join again, once it has forgotten its epochs
    // (start_afresh) or as it is (for_now)
struct DropWorker {
  WorkerId id;
  absl::Status reason;
};  // close its stream: it may join again
struct ReleaseWorker {
  WorkerId id;
};  // close its stream in peace: it has asked for it
struct AssignLayout {
  std::shared_ptr<const ClusterLayout> layout;
};
struct StartServing {
  std::shared_ptr<const ClusterLayout> layout;
};  // all are ready: steps may be sent
// Of a layout that is up: take no more requests, StopServing follows when those that run have ended.
struct CloseLayout {
  Epoch epoch;
  std::string reason;
};
struct StopServing {
  Epoch epoch;
  absl::Status reason;
  bool planned = false;  // nobody was lost: a worker has left as it was told to, or joined
};                       // of a layout that was up
struct EndWorkerEpoch {
  WorkerId id;
  Epoch epoch;
  std::string reason;
};
// What people should know although the service goes on.
struct Warn {
  std::string text;
};
// Why nothing is served, for people; when it changes. `refused`: all workers are there, but the planner says
// no, or one of them could not load its part and there is no plan for the others.
struct ReportWaiting {
  std::string reason;
  bool refused = false;
};
using ClusterAction =
    std::variant<AcceptWorker, RefuseWorker, DropWorker, ReleaseWorker, AssignLayout, StartServing,
                 CloseLayout, StopServing, EndWorkerEpoch, Warn, ReportWaiting>;

struct ClusterViewOptions {
  int workers_wanted = 1;
  // As few may serve where others that served stay away for `replace_wait`; 0: all that are wanted must.
  int workers_min = 0;
  absl::Duration replace_wait = kDefaultReplaceWait;
  std::string build_id;
  std::string model_id;
  std::string model_name;  // for messages
  ReadingText reading;     // the options that the model is read with, for messages
  absl::Duration heartbeat_timeout = kHeartbeatTimeout;
  absl::Duration load_timeout = kLoadTimeout;
  absl::Duration step_deadline;          // zero: from the plan
  absl::Duration drain = kDefaultDrain;  // for requests that run while a worker wants to leave
  bool mix_devices = false;  // workers of all device classes (coordinator/device_class.h) get parts
};

class ClusterView {
 public:
  // `kernel_levels`: those to plan for, one a device class; empty if they are still open.
  using PlanFunction = std::function<absl::StatusOr<Plan>(absl::Span<const WorkerInventory> workers,
                                                          const std::vector<std::string>& kernel_levels)>;
  ClusterView(ClusterViewOptions options, PlanFunction plan);

  // `now` never goes back.
  std::vector<ClusterAction> Handle(const ClusterEvent& event, absl::Duration now);

  bool serving() const { return phase_ == Phase::kServing; }
  // As of the last event.
  ClusterSnapshot snapshot() const;
  int workers_joined() const { return static_cast<int>(workers_.size()); }
  // Grows with everything that workers get done while they load.
  uint64_t loading_progress() const { return loading_progress_; }

 private:
  enum class Phase { kWaiting, kLoading, kServing };
  struct Worker {
    JoiningWorker info;
    WorkerProgress progress;
    absl::Duration last_beat;
    absl::Duration last_change;  // of the progress
    bool ready = false;          // in the current epoch
    bool leaving = false;        // as soon as it has no part
    int64_t weight_bytes = 0;    // that it holds, also after the epoch
    int64_t kv_bytes = 0;        // that it holds while the epoch lasts
    int64_t last_kv_bytes = 0;   // that it held last
    int failed_loads = 0;        // since it last served
    bool told_apart = false;     // that it computes other bits and gets no part
    LoadingMeter loading;        // of the current epoch
    absl::Duration not_before;   // no part for it until then
  };

  using MeasuredRates = std::pair<double, ArithmeticRates>;  // bytes read per second first

  void On(const WorkerJoined& event);
  void On(const WorkerLost& event);
  void On(const WorkerBeat& event);
  void On(const WorkerReady& event);
  void On(const WorkerFailed& event);
  void On(const WorkerLeaving& event);
  void On(const EpochFailed& event);
  void On(const ClusterTick& event);

  // Gives it the rates of the first worker of its host, CPU type and number of threads: a worker that comes
  // back, and its equals, count as equally fast, whatever a short measurement says.
  void TakeKnownRates(WorkerInventory* newcomer);
  // What a host, or a GPU, has for all its workers, said by one that came when others had taken their part
  // already.
  int64_t HostMemory(const WorkerInventory& newcomer) const;
  int64_t GpuMemory(const WorkerInventory& newcomer) const;
  // Why a worker is refused, empty if it is not. For now: in an upgrade coordinator and workers change, but
  // not at one moment.
  std::string OtherRelease(const JoiningWorker& worker) const;
  // And for good.
  std::string ReasonToRefuse(const JoiningWorker& worker) const;
  // It could not load its part: the others come first, and it rests, longer each time.
  void SendToEndOfLine(WorkerId id);
  // Whose workers get parts: the one that serves or has served, else the one with enough of them, GPUs first.
  // Empty: those of all.
  std::string ServingClass() const;
  bool MayServe(const Worker& worker, const std::string& device_class) const;
  // Tells, once, of workers that get no part because they compute other bits.
  void TellApart();
  // Those that may get a part now, the best choice first.
  std::vector<WorkerId> Line() const;
  // The first `count` of them by the order of joining, which a plan goes by.
  static std::vector<WorkerId> FirstOf(const std::vector<WorkerId>& line, int count);
  // `refusal`: why there is no plan for those, where fewer than are wanted would do.
  std::string WaitingReason(int joined, const std::string& refusal = "") const;
  absl::StatusOr<Plan> PlanFor(const std::vector<WorkerId>& ids) const;
  // As many of the line as there is a plan for, `least` at least. An error says why there is none for the
  // most.
  struct Choice {
    std::vector<WorkerId> ids;
    Plan plan;
  };
  absl::StatusOr<Choice> ChooseMost(const std::vector<WorkerId>& line, int least) const;
  void PlanIfPossible();
  // How many there have to be before there is a plan.
  int WorkersNeeded() const;
  // With more workers than the layout has, where it has fewer than are wanted, the cluster forms anew. After
  // a try that did not come to serve, and for one that could not load, only where fewer have served for a
  // while: who dies or fails each time it loads must not keep the others from serving.
  void Grow();
  void Assign(const std::vector<WorkerId>& ids, Plan plan);
  // `member` has loaded its part.
  void SetHeld(const ClusterLayout::Member& member);
  void StartIfAllReady();
  void RememberLevels(const Plan& plan);
  // Whether layers are computed otherwise than when they last served, with a warning.
  bool ComputesOtherBits(const Plan& plan);
  // How much of the model the workers have loaded, every now and then.
  void ReportLoading();
  // Ends the epoch for everyone; `reason` names who is to blame. `refused` as in ReportWaiting.
  void EndEpoch(const absl::Status& reason, EpochEnd why, bool refused = false);
  // `why` its epoch ends, if it has a part in one.
  void Remove(WorkerId id, const absl::Status& reason, EpochEnd why);
  // Those that leave and have no part in what serves are let go.
  void ReleaseLeaving();
  // Ends the epoch that a worker wants to leave, once nothing runs or the drain time is over.
  void CheckClosing(const ClusterTick& tick);
  void CheckHeartbeats();
  void CheckLoading();
  void CheckSteps(const ClusterTick& tick);
  const ClusterLayout::Member* FindMember(WorkerId id) const;
  const ClusterLayout::Member* FindMember(const std::string& name) const;
  void Report(std::string reason, bool refused = false);
  absl::Duration StepDeadline(const Plan& plan) const;

  const ClusterViewOptions options_;
  const PlanFunction plan_;
  absl::Duration now_;
  std::optional<absl::Duration> last_tick_;
  std::vector<ClusterAction> actions_;

  KnownWeights known_weights_;

  Phase phase_ = Phase::kWaiting;
  std::map<WorkerId, Worker> workers_;           // those accepted, in the order they joined
  std::shared_ptr<const ClusterLayout> layout_;  // null while waiting
  std::optional<absl::Duration> closing_since_;  // of the layout that serves
  std::optional<absl::Duration> short_since_;    // of workers: when one that served was lost, or left
  int served_short_of_ = 0;                      // those that serve, or served last
  uint64_t last_epoch_ = 0;
  std::map<std::string, std::string> kernel_levels_;  // by device class, fixed when it first serves
  std::vector<std::string> layer_levels_;             // by layer, of the layout that served last
  // By host, CPU type, threads.
  std::map<std::tuple<std::string, std::string, int32_t>, MeasuredRates> rates_;
  std::pair<std::vector<WorkerId>, int> no_plan_for_;  // the line, and how many of it were needed
  std::string refusal_;                                // why there is none
  absl::Duration plan_not_before_;
  std::vector<WorkerId> not_grown_for_;  // the line, in this epoch
  size_t grown_to_ = 0;                  // as many as it grew for, until so many serve
  absl::Duration grow_again_;            // after a try that failed, or for one that could not load
  absl::Duration plan_delay_;            // grows while epochs fail before they serve
  int loaded_percent_ = 0;               // last told
  uint64_t loading_progress_ = 0;
  std::string last_report_;
  std::string end_reason_;  // why the last epoch ended, until the next one serves

  // For snapshots.
  std::vector<double> WaitedFor() const;
  std::optional<absl::Duration> begun_;  // when the first event came
  absl::Duration served_;                // time in which requests were taken
  std::array<uint64_t, kEpochEnds> epochs_ended_{};
  std::shared_ptr<const ClusterLayout> last_layout_;  // layout_, or the one before
};

// "worker a (stage 1, rank 0)"
std::string Describe(const ClusterLayout::Member& member);
// "3.5 s", of waits and limits
std::string InSeconds(absl::Duration duration);

}  // namespace bellwether
