#include "coordinator/cluster_service.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/bounded_queue.h"
#include "common/defaults.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "common/quote.h"
#include "common/repeated_message.h"
#include "common/service_watchdog.h"
#include "common/status.h"
#include "common/system_random.h"
#include "coordinator/core_shortage.h"
#include "coordinator/plan_rates.h"
#include "coordinator/worker_messages.h"
#include "coordinator/worker_stream.h"
#include "model/layout.h"
#include "proto/assignment_codec.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/step_codec.h"

namespace bellwether {
namespace {

constexpr absl::Duration kTickInterval = absl::Milliseconds(100);
constexpr size_t kEventsMax = 1 << 16;

using MessagePtr = std::shared_ptr<const v1::CoordinatorMessage>;

std::string RandomSecret() {
  char bytes[16];
  FillRandom(bytes, sizeof(bytes));
  return absl::BytesToHexString(absl::string_view(bytes, sizeof(bytes)));
}

}  // namespace

class ClusterService::Impl : public v1::Cluster::CallbackService {
 public:
  explicit Impl(Options options) : options_(std::move(options)), view_(options_.view, options_.plan) {
    HandleEvent(MakeTick());  // whoever asks first is told what is waited for
    thread_ = std::thread([this] { Run(); });
  }
  ~Impl() override { Stop(); }

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Join(
      grpc::CallbackServerContext* context) override;
  void SendStep(const Step& step);
  void FailEpoch(Epoch epoch, const absl::Status& reason) { Push(EpochFailed{epoch, reason}); }
  Status status() const;
  std::shared_ptr<const ClusterSnapshot> snapshot() const;
  void Stop();

 private:
  // The layout that is up, as the step path needs it.
  struct Serving {
    Epoch epoch;
    std::vector<std::shared_ptr<WorkerStream>> members;  // flat order
    WorkerId reporter;                                   // rank 0 of the last stage: sends the results
    struct Sent {
      StepId id;
      absl::Duration at;
      absl::Duration planned;  // that its result comes behind the one before, or its sending
    };
    std::deque<Sent> outstanding;
    absl::Duration last_change;
    std::shared_ptr<const ClusterLayout> layout;
    StepReport report;
  };

  // On gRPC's threads.
  void OnMessage(WorkerStream& stream, const v1::WorkerMessage& message);
  void OnJoin(WorkerStream& stream, const v1::JoinRequest& join);
  // Names tell workers apart in messages and in who waits for whom: one that is taken gets a number. False if
  // the house is full.
  bool TakePlace(WorkerStream& stream, std::string* name);
  // For good.
  void Refuse(WorkerStream& stream, const std::string& reason);
  void OnResult(WorkerStream& stream, const v1::StepResult& message);
  void Push(ClusterEvent event);

  // On the service's own thread, once it runs.
  void Run();
  void HandleEvent(const ClusterEvent& event);
  // Once a minute, where layers are streamed.
  void ReportSteps(absl::Duration now);
  void Do(const AcceptWorker& action);
  void Do(const RefuseWorker& action);
  void Do(const DropWorker& action);
  void Do(const ReleaseWorker& action);
  void Do(const AssignLayout& action);
  void Do(const StartServing& action);
  void Do(const CloseLayout& action);
  void Do(const StopServing& action);
  void Do(const EndWorkerEpoch& action);
  void Do(const Warn& action);
  void Do(const ReportWaiting& action);
  ClusterTick MakeTick() const;
  std::shared_ptr<WorkerStream> Find(WorkerId id) const;
  void LogOf(WorkerId id, LogLevel level, const std::string& what) const;
  void SendTo(WorkerId id, v1::CoordinatorMessage message);

  const Options options_;
  std::atomic<uint64_t> last_worker_{0};
  BoundedQueue<ClusterEvent> events_{kEventsMax};
  ClusterView view_;  // the thread's own, and the constructor's before

  mutable absl::Mutex mutex_;  // never held while a stream is called
  absl::flat_hash_map<WorkerId, std::shared_ptr<WorkerStream>> streams_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<WorkerId, std::string> names_ ABSL_GUARDED_BY(mutex_);  // of those that said join
  std::optional<Serving> serving_ ABSL_GUARDED_BY(mutex_);
  Status status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ClusterSnapshot> snapshot_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // Lines about what strangers can do as often as they like.
  LogLimiter overflows_{1, absl::Seconds(1)}, refusals_{20, absl::Seconds(1)}, comings_{20, absl::Seconds(1)},
      waits_{20, absl::Seconds(1)};
  RepeatedMessage refused_for_now_;  // by the thread

  std::thread thread_;
};

// -- Streams

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* ClusterService::Impl::Join(
    grpc::CallbackServerContext* context) {
  const WorkerId id{++last_worker_};
  const std::shared_ptr<WorkerStream> stream = WorkerStream::Start(
      context, id,
      {.on_message = [this](WorkerStream& from,
                            const v1::WorkerMessage& message) { OnMessage(from, message); },
       .on_end =
           [this](WorkerStream& from, const absl::Status& reason) {
             {
               absl::MutexLock lock(&mutex_);
               streams_.erase(from.id());
               names_.erase(from.id());
             }
             Push(WorkerLost{from.id(), reason});
           }});
  return stream.get();
}

void ClusterService::Impl::OnMessage(WorkerStream& stream, const v1::WorkerMessage& message) {
  bool joined = false;
  {
    absl::MutexLock lock(&mutex_);
    joined = names_.contains(stream.id());
  }
  if (joined != (message.message_case() != v1::WorkerMessage::kJoin)) {
    stream.Close(absl::InvalidArgumentError("the first message, and only that, must be join"));
    return;
  }
  switch (message.message_case()) {
    case v1::WorkerMessage::kJoin:
      return OnJoin(stream, message.join());
    case v1::WorkerMessage::kHeartbeat: {
      absl::StatusOr<WorkerProgress> progress = FromProto(message.heartbeat());
      if (!progress.ok()) return stream.Close(progress.status());
      return Push(WorkerBeat{stream.id(), *std::move(progress)});
    }
    case v1::WorkerMessage::kReady: {
      absl::StatusOr<WorkerReady> ready = FromProto(stream.id(), message.ready());
      if (!ready.ok()) return stream.Close(ready.status());
      return Push(*std::move(ready));
    }
    case v1::WorkerMessage::kStepResult:
      return OnResult(stream, message.step_result());
    case v1::WorkerMessage::kFailure:
      return Push(FromProto(stream.id(), message.failure()));
    case v1::WorkerMessage::kLeaving:
      return Push(WorkerLeaving{stream.id()});
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      return;
  }
}

void ClusterService::Impl::OnJoin(WorkerStream& stream, const v1::JoinRequest& join) {
  if (!options_.join_secret.Matches(join.join_secret())) {
    const bool none = join.join_secret().empty();
    return Refuse(stream,
                  absl::StrCat("its join secret is ", none ? "missing" : "another", " (--join-secret)"));
  }
  if (const absl::Status status = CheckJoin(join); !status.ok()) {
    return Refuse(stream, {status.message().data(), status.message().size()});
  }
  JoiningWorker worker = FromProto(join);
  worker.metrics_address = ReachableAddress(worker.metrics_address, stream.peer());
  if (join.has_held()) {
    // One that makes no sense costs the worker no more than loading its part.
    if (absl::StatusOr<HeldPart> held = Decode(join.held()); held.ok())
      worker.inventory.held = *std::move(held);
  }
  if (!TakePlace(stream, &worker.inventory.name)) {
    // Not a refusal, which would be final: a place may be free the next time.
    return stream.Close(absl::ResourceExhaustedError(
        absl::StrCat(options_.workers_max, " workers have joined already, no more are taken")));
  }
  Push(WorkerJoined{stream.id(), std::move(worker)});
}

void ClusterService::Impl::Refuse(WorkerStream& stream, const std::string& reason) {
  if (const auto more = refusals_.Admit()) {
    LogWarning("refused a worker at ", stream.peer(), ": ", Printable(reason), AndLikeIt(*more));
  }
  auto refusal = std::make_shared<v1::CoordinatorMessage>();
  refusal->mutable_refusal()->set_reason(Printable(reason));
  stream.Send(std::move(refusal));
  stream.Close(absl::OkStatus());
}

bool ClusterService::Impl::TakePlace(WorkerStream& stream, std::string* name) {
  absl::MutexLock lock(&mutex_);
  if (names_.size() >= static_cast<size_t>(options_.workers_max)) return false;
  const bool taken =
      std::any_of(names_.begin(), names_.end(), [name](const auto& it) { return it.second == *name; });
  if (taken) absl::StrAppend(name, "#", stream.id().value);
  names_[stream.id()] = *name;
  streams_[stream.id()] = stream.shared_from_this();
  return true;
}

void ClusterService::Impl::OnResult(WorkerStream& stream, const v1::StepResult& message) {
  absl::StatusOr<StepResult> result = Decode(message);
  absl::Status wrong = result.status();
  StepTime time;
  if (result.ok()) {
    absl::MutexLock lock(&mutex_);
    if (!serving_ || serving_->epoch != result->epoch) return;  // late, of an epoch that has ended
    if (stream.id() != serving_->reporter) {
      wrong = absl::InvalidArgumentError("results come from rank 0 of the last stage only");
    } else if (serving_->outstanding.empty() || serving_->outstanding.front().id != result->id) {
      wrong =
          absl::InvalidArgumentError(absl::StrCat("a result of step ", result->id.value, " is out of order"));
    } else if (!TokensInRange(*result, options_.vocab)) {
      wrong = absl::InvalidArgumentError(absl::StrCat("a result of step ", result->id.value,
                                                      " holds token ids beyond the vocabulary of ",
                                                      options_.vocab));
    } else {
      const Serving::Sent& sent = serving_->outstanding.front();
      const absl::Duration now = options_.clock->Now();
      time = {.took = now - sent.at,
              .busy = now - std::exchange(serving_->last_change, now),
              .planned = sent.planned};
      serving_->report.Add(time);
      serving_->outstanding.pop_front();
    }
  }
  if (!wrong.ok()) return Push(WorkerFailed{stream.id(), {message.epoch()}, wrong, ""});
  options_.step_took(time);
  options_.post(StepFinished{*std::move(result)});
}

void ClusterService::Impl::Push(ClusterEvent event) {
  // Full only if workers send far more than they should; the heartbeats lost then are missed and end the
  // epoch.
  if (events_.TryPush(std::move(event)) || events_.closed()) return;
  if (const auto more = overflows_.Admit()) {
    LogWarning("the cluster's event queue is full", AndLikeIt(*more));
  }
}

// -- Steps

void ClusterService::Impl::SendStep(const Step& step) {
  auto message = std::make_shared<v1::CoordinatorMessage>();
  Encode(step, message->mutable_step());
  if (const int64_t bytes = static_cast<int64_t>(message->ByteSizeLong()); bytes > kControlMessageBytesMax) {
    return FailEpoch(step.epoch,
                     absl::InternalError(absl::StrCat("step ", step.id.value, " takes ", bytes,
                                                      " bytes, allowed are ", kControlMessageBytesMax)));
  }
  std::vector<std::shared_ptr<WorkerStream>> members;
  {
    absl::MutexLock lock(&mutex_);
    if (!serving_ || serving_->epoch != step.epoch) return;
    const absl::Duration now = options_.clock->Now();
    const Plan& plan = serving_->layout->plan;
    const bool alone = serving_->outstanding.empty();
    if (alone) serving_->last_change = now;
    const int32_t tokens = step.tokens();
    const double planned = alone ? StepSeconds(plan, tokens) : StepSecondsBehind(plan, tokens);
    serving_->outstanding.push_back({step.id, now, absl::Seconds(planned)});
    members = serving_->members;
  }
  for (const std::shared_ptr<WorkerStream>& member : members) member->Send(message);
}

// -- The view's thread

void ClusterService::Impl::Run() {
  ServiceWatchdog::Pulse pulse;
  absl::Duration next_tick = options_.clock->Now();
  while (true) {
    const absl::Duration now = options_.clock->Now();
    if (now >= next_tick) {
      next_tick = now + kTickInterval;
      HandleEvent(MakeTick());
      ReportSteps(now);
      pulse.Turned();
    }
    if (const std::optional<ClusterEvent> event = events_.Pop(next_tick - now)) {
      HandleEvent(*event);
    } else if (events_.closed()) {
      return;
    }
  }
}

void ClusterService::Impl::ReportSteps(absl::Duration now) {
  std::string line;
  {
    absl::MutexLock lock(&mutex_);
    if (serving_ && serving_->layout->plan.drive_seconds > 0) line = serving_->report.Due(now);
  }
  if (!line.empty()) LogInfo(line);
}

void ClusterService::Impl::HandleEvent(const ClusterEvent& event) {
  const std::vector<ClusterAction> actions = view_.Handle(event, options_.clock->Now());
  // Heartbeats alone are not worth a look at everything. Before anybody hears of the actions.
  if (!actions.empty() || std::holds_alternative<ClusterTick>(event)) {
    auto snapshot = std::make_shared<const ClusterSnapshot>(view_.snapshot());
    absl::MutexLock lock(&mutex_);
    snapshot_.swap(snapshot);  // the old one ends after the lock
  }
  for (const ClusterAction& action : actions) std::visit([this](const auto& it) { Do(it); }, action);
  absl::MutexLock lock(&mutex_);
  status_.loading_progress = view_.loading_progress();
}

ClusterTick ClusterService::Impl::MakeTick() const {
  ClusterTick tick;
  {
    absl::MutexLock lock(&mutex_);
    if (!serving_) return tick;
    tick.steps_outstanding = static_cast<int32_t>(serving_->outstanding.size());
    tick.last_step_change = serving_->last_change;
  }
  tick.idle = options_.idle();
  return tick;
}

void ClusterService::Impl::LogOf(WorkerId id, LogLevel level, const std::string& what) const {
  LogFields fields;
  {
    absl::MutexLock lock(&mutex_);
    const auto name = names_.find(id);
    if (name != names_.end()) fields = {{"worker", name->second}};
  }
  Log(level, absl::StrCat("worker ", id.value, " ", what), fields);
}

std::shared_ptr<WorkerStream> ClusterService::Impl::Find(WorkerId id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = streams_.find(id);
  return it == streams_.end() ? nullptr : it->second;
}

void ClusterService::Impl::SendTo(WorkerId id, v1::CoordinatorMessage message) {
  if (const auto stream = Find(id))
    stream->Send(std::make_shared<const v1::CoordinatorMessage>(std::move(message)));
}

void ClusterService::Impl::Do(const AcceptWorker& action) {
  v1::CoordinatorMessage message;
  message.mutable_joined()->set_worker_id(action.id.value);
  message.mutable_joined()->set_drain_seconds(absl::ToDoubleSeconds(options_.view.drain));
  message.mutable_joined()->set_name(action.name);
  SendTo(action.id, std::move(message));
  if (const auto more = comings_.Admit())
    LogOf(action.id, LogLevel::kInfo, absl::StrCat("has joined", AndLikeIt(*more)));
}

void ClusterService::Impl::Do(const RefuseWorker& action) {
  // Who is refused for now asks again every few seconds.
  if (!action.for_now || refused_for_now_.IsDue(options_.clock->Now(), action.reason)) {
    if (const auto more = refusals_.Admit())
      LogWarning("refused a worker: ", action.reason, AndLikeIt(*more));
  }
  if (action.for_now) {
    if (const auto stream = Find(action.id)) stream->Close(absl::UnavailableError(Printable(action.reason)));
    return;
  }
  v1::CoordinatorMessage message;
  message.mutable_refusal()->set_reason(Printable(action.reason));
  message.mutable_refusal()->set_start_afresh(action.start_afresh);
  SendTo(action.id, std::move(message));
  if (const auto stream = Find(action.id)) stream->Close(absl::OkStatus());
}

void ClusterService::Impl::Do(const DropWorker& action) {
  LogOf(action.id, LogLevel::kWarning, absl::StrCat("is dropped: ", action.reason.message()));
  if (const auto stream = Find(action.id)) stream->Drop();
}

void ClusterService::Impl::Do(const ReleaseWorker& action) {
  if (const auto more = comings_.Admit())
    LogOf(action.id, LogLevel::kInfo, absl::StrCat("leaves", AndLikeIt(*more)));
  if (const auto stream = Find(action.id)) stream->Close(absl::OkStatus());
}

void ClusterService::Impl::Do(const AssignLayout& action) {
  const ClusterLayout& layout = *action.layout;
  SetLogFields({{"epoch", absl::StrCat(layout.epoch.value)}});
  const auto keeps = [](const ClusterLayout::Member& member) { return member.keeps; };
  LogInfo("epoch ", layout.epoch.value, ": ", Describe(layout.plan.layout), ", kernel level ",
          layout.plan.KernelLevelText(), ", ",
          std::count_if(layout.members.begin(), layout.members.end(), keeps), " of ", layout.members.size(),
          " workers keep their weights\n", layout.plan.arithmetic);
  AssignmentMessage message;
  message.assignment = {.epoch = layout.epoch,
                        .model_id = options_.view.model_id,
                        .layout = layout.plan.layout,
                        .kv_blocks = layout.plan.kv_blocks,
                        .context_tokens = options_.context_tokens,
                        .step_tokens = layout.plan.step_tokens,
                        .step_deadline = layout.step_deadline};
  message.link_secret = RandomSecret();
  std::vector<const WorkerInventory*> inventories;
  for (const ClusterLayout::Member& member : layout.members) {
    inventories.push_back(&member.worker.inventory);
    message.peers.push_back({.name = member.worker.inventory.name,
                             .stage = member.stage,
                             .rank = member.rank,
                             .host_id = member.worker.inventory.host,
                             .unix_socket = member.worker.unix_socket,
                             .link_address = member.worker.link_address});
  }
  for (size_t i = 0; i < layout.members.size(); ++i) {
    const ClusterLayout::Member& member = layout.members[i];
    const PlannedWorker& planned = layout.plan.workers[i];
    message.assignment.stage = member.stage;
    message.assignment.rank = member.rank;
    message.assignment.numeric = layout.plan.numeric(member.stage);
    message.assignment.cores_are_short = CoresAreShort(member.worker.inventory, inventories);
    message.assignment.stage_kernel_levels = layout.plan.kernel_levels;
    message.assignment.streamed_layers = planned.streamed_layers;
    message.assignment.stream_home = planned.stream_home;
    message.assignment.streamed_ends = planned.streamed_ends;
    v1::CoordinatorMessage out;
    Encode(message, out.mutable_assignment());
    SendTo(member.id, std::move(out));
  }
}

void ClusterService::Impl::Do(const StartServing& action) {
  const ClusterLayout& layout = *action.layout;
  Serving serving{.epoch = layout.epoch, .last_change = options_.clock->Now(), .layout = action.layout};
  std::string reporter;
  for (const ClusterLayout::Member& member : layout.members) {
    // One that has gone meanwhile gets no step; its end is on its way to the view.
    if (auto stream = Find(member.id)) serving.members.push_back(std::move(stream));
    if (member.rank != 0) continue;
    serving.reporter = member.id;  // the last one is that of the last stage
    reporter = Describe(member);
  }
  {
    absl::MutexLock lock(&mutex_);
    serving_ = std::move(serving);
    status_ = {.serving = true,
               .layout = Describe(layout.plan.layout),
               .kernel_level = layout.plan.KernelLevelText(),
               .kv_blocks = layout.plan.kv_blocks};
  }
  LogInfo("serving in epoch ", layout.epoch.value);
  options_.post(LayoutUp{.epoch = layout.epoch,
                         .kv_blocks = layout.plan.kv_blocks,
                         .stages = layout.plan.StepsInFlight(),
                         .step_tokens = layout.plan.step_tokens,
                         .reporter = std::move(reporter),
                         .other_bits = layout.other_bits});
  options_.serving_changed(true);
}

void ClusterService::Impl::Do(const CloseLayout& action) {
  {
    absl::MutexLock lock(&mutex_);
    status_.serving = false;
    status_.not_serving_reason = action.reason;
  }
  LogInfo("epoch ", action.epoch.value, " takes no more requests: ", action.reason);
  options_.serving_changed(false);
  options_.post(LayoutClosing{action.epoch, action.reason});
}

void ClusterService::Impl::Do(const StopServing& action) {
  {
    absl::MutexLock lock(&mutex_);
    serving_.reset();
    status_.serving = false;
    status_.not_serving_reason = std::string(action.reason.message());
  }
  LogError("epoch ", action.epoch.value, " has ended: ", action.reason.message());
  options_.serving_changed(false);
  options_.post(LayoutDown{action.epoch, action.reason, action.planned});
}

void ClusterService::Impl::Do(const EndWorkerEpoch& action) {
  v1::CoordinatorMessage message;
  message.mutable_end_epoch()->set_epoch(action.epoch.value);
  message.mutable_end_epoch()->set_reason(Printable(action.reason));
  SendTo(action.id, std::move(message));
}

void ClusterService::Impl::Do(const Warn& action) { LogWarning(action.text); }

void ClusterService::Impl::Do(const ReportWaiting& action) {
  if (const auto more = waits_.Admit()) LogInfo(action.reason, AndLikeIt(*more));
  absl::MutexLock lock(&mutex_);
  status_.not_serving_reason = action.reason;
  status_.refused = action.refused;
}

ClusterService::Status ClusterService::Impl::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

std::shared_ptr<const ClusterSnapshot> ClusterService::Impl::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

void ClusterService::Impl::Stop() {
  std::vector<std::shared_ptr<WorkerStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(stopping_, true)) return;
    for (const auto& [id, stream] : streams_) streams.push_back(stream);
  }
  events_.Close();
  thread_.join();
  for (const auto& stream : streams)
    stream->Close(absl::UnavailableError("the coordinator is shutting down"));
}

// -- The outside

ClusterService::ClusterService(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
ClusterService::~ClusterService() = default;
grpc::Service* ClusterService::service() { return impl_.get(); }
void ClusterService::SendStep(const Step& step) { impl_->SendStep(step); }
void ClusterService::FailEpoch(Epoch epoch, const absl::Status& reason) { impl_->FailEpoch(epoch, reason); }
ClusterService::Status ClusterService::status() const { return impl_->status(); }
std::shared_ptr<const ClusterSnapshot> ClusterService::snapshot() const { return impl_->snapshot(); }
void ClusterService::Stop() { impl_->Stop(); }

}  // namespace bellwether
