#include "worker/session.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/quote.h"
#include "common/repeated_message.h"
#include "common/service_watchdog.h"
#include "common/status.h"
#include "grpcpp/grpcpp.h"
#include "proto/assignment_codec.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_status.h"
#include "proto/step_codec.h"
#include "proto/worker_state_codec.h"
#include "worker/inventory.h"
#include "worker/session_machine.h"
#include "worker/weights/drive_rate.h"
#include "worker/weights/loaded_shard.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

// What a coordinator may take beyond its drain time to let a worker go.
constexpr absl::Duration kLeaveMargin = absl::Seconds(5);

using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address, const ChannelSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kControlMessageBytesMax));
  // A coordinator that hangs, or a host that vanishes, is noticed within a few seconds.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 4000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return MakeChannel(address, Proxy::kNever, arguments, security);
}

std::string Describe(const AssignedPeer& peer) {
  return absl::StrCat("worker ", peer.name, " (stage ", peer.stage, ", rank ", peer.rank, ")");
}

class GrpcSession : public WorkerSession {
 public:
  GrpcSession(Options options, ChannelSecurity security, std::unique_ptr<LinkListener> links,
              std::unique_ptr<const ShardCache> cache);

  absl::Status Run() override;
  void Leave() override;
  void Stop() override;
  Snapshot snapshot() const override;

 private:
  void LogJoinFailure(const std::string& reason);
  // From join to the end of the stream. Whether the coordinator took this worker is in joined_.
  absl::Status RunStream();
  absl::StatusOr<v1::JoinRequest> MakeJoin();
  absl::StatusOr<double> DriveRateFor(int64_t memory_bytes);
  // Errors end the session for good.
  absl::Status Handle(const v1::CoordinatorMessage& message);
  void TakeJoined(const v1::Joined& message);
  absl::Status Begin(const v1::Assignment& message);
  absl::Status Step(const v1::Step& message);

  // From any thread; dropped while there is no stream.
  void Send(const v1::WorkerMessage& message);
  void SendFailure(Epoch epoch, const absl::Status& status, int blamed);
  void SendHeartbeats();  // until the stream ends; and that this worker wants to leave
  void SendHeartbeat();
  void SendLeaving();
  std::string PeerName(Epoch epoch, int index) const;
  bool WaitForStop(absl::Duration limit) const;
  // Remembers that the device is lost, if it is. From the runner's thread.
  void CheckDevice();
  absl::Status device_status() const;
  bool Leaving() const;
  void StopIfNotLetGo();

  const Options options_;
  const ChannelSecurity security_;
  const std::unique_ptr<LinkListener> links_;
  const std::unique_ptr<const ShardCache> cache_;  // null: no layer can be streamed
  ModelSource models_;
  std::optional<v1::JoinRequest> join_;
  std::atomic<bool> joined_{false};  // by the stream under way
  RepeatedMessage failures_;         // of joins in a row

  Mutex write_mutex_;                                                     // one Write at a time
  mutable Mutex mutex_;                                                   // never held while gRPC is called
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);                // null between streams
  std::shared_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);  // of stream_
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status device_status_ ABSL_GUARDED_BY(mutex_);
  std::string name_ ABSL_GUARDED_BY(mutex_);                      // as the coordinator calls this worker
  absl::Duration drain_ ABSL_GUARDED_BY(mutex_) = kDefaultDrain;  // the coordinator's
  // When it stops though the coordinator has not let it go.
  std::optional<absl::Duration> leave_until_ ABSL_GUARDED_BY(mutex_);
  Epoch peers_epoch_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> peer_names_ ABSL_GUARDED_BY(mutex_);  // of peers_epoch_, in flat order

  ServiceWatchdog::Pulse pulse_;         // of the thread of the heartbeats, or of Run while there is none
  std::unique_ptr<EpochRunner> runner_;  // last: its events use the rest
};

GrpcSession::GrpcSession(Options options, ChannelSecurity security, std::unique_ptr<LinkListener> links,
                         std::unique_ptr<const ShardCache> cache)
    : options_(std::move(options)),
      security_(std::move(security)),
      links_(std::move(links)),
      cache_(std::move(cache)),
      models_(options_.model, options_.model_root, options_.read),
      name_(options_.name) {
  EpochRunner::Options runner;
  runner.models = &models_;
  runner.links = links_.get();
  runner.device = options_.device.device;
  runner.threads = options_.threads;
  runner.cpus = options_.cpus;
  runner.nccl = options_.nccl;
  runner.cache = cache_.get();
  runner.cache_all = options_.shard_cache != kShardCacheAuto;
  runner.verify_always = options_.verify_stream == "always";
  runner.events.ready = [this](Epoch epoch, const LoadedShard& shard, int64_t kv_bytes) {
    v1::WorkerMessage message;
    message.mutable_ready()->set_epoch(epoch.value);
    message.mutable_ready()->set_weight_bytes(shard.bytes);
    message.mutable_ready()->set_kv_bytes(kv_bytes);
    for (const WeightHash& hash : shard.hashes) {
      if (message.ready().hashes_size() == kWeightHashesMax) break;
      v1::WeightHash* out = message.mutable_ready()->add_hashes();
      out->set_what(hash.what);
      out->set_hash(hash.hash);
    }
    Send(message);
  };
  runner.events.result = [this](const StepResult& result) {
    v1::WorkerMessage message;
    Encode(result, message.mutable_step_result());
    Send(message);
  };
  runner.events.failed = [this](Epoch epoch, const absl::Status& status, int blamed) {
    CheckDevice();
    SendFailure(epoch, status, blamed);
  };
  runner_ = std::make_unique<EpochRunner>(std::move(runner));
}

// -- Life

absl::Status GrpcSession::Run() {
  absl::Duration delay = kRejoinDelayFirst;
  while (true) {
    pulse_.Turned();
    if (!join_) {
      BW_ASSIGN_OR_RETURN(join_, MakeJoin());
    }
    absl::Status status = RunStream();
    runner_->End({}, "the connection to the coordinator is over");
    if (absl::IsFailedPrecondition(status) || absl::IsAborted(status)) return status;
    BW_RETURN_IF_ERROR(device_status());
    if (Leaving()) return absl::OkStatus();
    if (joined_) {
      delay = kRejoinDelayFirst;
      failures_.Reset();
    }
    if (WaitForStop(absl::ZeroDuration())) return absl::OkStatus();
    LogJoinFailure(std::string(status.message()));
    if (WaitForStop(delay)) return absl::OkStatus();
    delay = std::min(2 * delay, kRejoinDelayMax);
  }
}

void GrpcSession::Leave() {
  bool joined = false;
  {
    MutexLock lock(&mutex_);
    joined = stream_ != nullptr && joined_;
    // The coordinator hears of it from the thread of the heartbeats: a write can wait.
    if (joined && !leave_until_) leave_until_ = Clock::Real()->Now() + drain_ + kLeaveMargin;
  }
  if (!joined) Stop();
}

bool GrpcSession::Leaving() const {
  MutexLock lock(&mutex_);
  return leave_until_.has_value();
}

void GrpcSession::StopIfNotLetGo() {
  {
    MutexLock lock(&mutex_);
    if (!leave_until_ || Clock::Real()->Now() < *leave_until_) return;
  }
  LogWarning("the coordinator does not let this worker go: it ends");
  Stop();
}

void GrpcSession::Stop() {
  std::shared_ptr<grpc::ClientContext> context;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    context = context_;
  }
  if (context != nullptr) context->TryCancel();
  runner_->End({}, "the worker is stopping");
}

void GrpcSession::CheckDevice() {
  const absl::Status health =
      Annotate(options_.device.device->Health(),
               absl::StrCat("the device is lost, this worker ends and may be started anew: ",
                            options_.device.device->Describe()));
  MutexLock lock(&mutex_);
  device_status_ = health;
}

absl::Status GrpcSession::device_status() const {
  MutexLock lock(&mutex_);
  return device_status_;
}

void GrpcSession::LogJoinFailure(const std::string& reason) {
  const absl::Duration now = Clock::Real()->Now();
  if (!failures_.IsDue(now, reason)) return;
  const absl::Duration age = absl::Trunc(failures_.age(now), absl::Seconds(1));
  const std::string since =
      age > absl::ZeroDuration() ? absl::StrCat(" for ", absl::FormatDuration(age)) : "";
  LogWarning("no coordinator at ", options_.coordinator, since, " (", reason, TlsAdvice(reason, options_.tls),
             "): joining again and again until there is one");
}

bool GrpcSession::WaitForStop(absl::Duration limit) const {
  MutexLock lock(&mutex_);
  const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
  return mutex_.AwaitFor(stopping, limit);
}

// Made once: what is available shrinks by what this worker then holds.
absl::StatusOr<v1::JoinRequest> GrpcSession::MakeJoin() {
  v1::JoinRequest join;
  join.set_protocol_version(kClusterProtocolVersion);
  join.set_build_id(options_.build_id);
  DescribeMachine(options_, &join);
  const OpenedDevice& device = options_.device;
  const int64_t memory = device.gpu ? device.gpu->free_bytes : join.memory_bytes();
  BW_ASSIGN_OR_RETURN(const double drive_rate, DriveRateFor(memory));
  join.set_drive_bytes_per_second(drive_rate);
  join.set_unix_socket(links_->unix_socket());
  join.set_link_address(links_->grpc_address());
  join.set_metrics_address(options_.metrics_address);
  join.set_metrics_tls(options_.metrics_tls);
  join.set_join_secret(options_.join_secret.bytes());
  BW_ASSIGN_OR_RETURN(std::string model_id, models_.ModelId());
  join.set_model_id(std::move(model_id));
  BW_ASSIGN_OR_RETURN(const ReadingText reading, models_.Reading());
  join.mutable_read_options()->insert(reading.begin(), reading.end());
  return join;
}

// Measured where a plan may ask for it: where the model takes much of the memory, or is not known yet.
absl::StatusOr<double> GrpcSession::DriveRateFor(int64_t memory_bytes) {
  if (cache_ == nullptr) return 0.0;
  BW_ASSIGN_OR_RETURN(const int64_t whole, models_.WholeBytes());
  if (whole > 0 && whole <= memory_bytes / 4) return kAssumedDriveRate;
  const absl::Status status = cache_->MakeDirectory();
  absl::StatusOr<double> rate = status.ok() ? DriveRate(cache_->directory()) : status;
  if (rate.ok()) {
    LogInfo("the drive of ", Printable(cache_->directory()), " reads ", *rate / 1e9, " GB/s");
    return rate;
  }
  LogWarning("no layer can be streamed: ", rate.status().message());
  return 0.0;
}

absl::Status GrpcSession::RunStream() {
  joined_ = false;
  const auto channel = ChannelTo(options_.coordinator, security_);
  const auto stub = v1::Cluster::NewStub(channel);
  const auto context = std::make_shared<grpc::ClientContext>();
  context->set_wait_for_ready(false);
  const std::shared_ptr<Stream> stream(stub->Join(context.get()));
  bool stopping = false;
  {
    MutexLock lock(&mutex_);
    stopping = stopping_;
    stream_ = stream;
    context_ = context;
  }
  if (stopping) context->TryCancel();
  v1::WorkerMessage join;
  *join.mutable_join() = *join_;
  if (const std::optional<HeldPart> held = runner_->held())
    Encode(*held, join.mutable_join()->mutable_held());
  Send(join);

  absl::Status status;
  std::thread heartbeats;
  v1::CoordinatorMessage message;
  while (status.ok() && stream->Read(&message)) {
    status = Handle(message);
    if (joined_ && !heartbeats.joinable()) heartbeats = std::thread([this] { SendHeartbeats(); });
  }
  {
    MutexLock lock(&mutex_);
    stream_ = nullptr;
    context_ = nullptr;
  }
  // A write that waits for the coordinator ends too. Before it has joined nobody else writes, and a cancel
  // would only hide what the coordinator said at the end.
  if (joined_ || !status.ok()) context->TryCancel();
  if (heartbeats.joinable()) heartbeats.join();
  MutexLock lock(&write_mutex_);  // the last writer is out
  const absl::Status end = ToAbsl(stream->Finish());
  return status.ok()
             ? (end.ok() ? absl::UnavailableError("the stream ended") : absl::UnavailableError(end.message()))
             : status;
}

// -- What the coordinator says

absl::Status GrpcSession::Handle(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kJoined:
      TakeJoined(message.joined());
      joined_ = true;
      SetLogFields({{"worker", snapshot().name}});
      LogInfo("joined ", options_.coordinator, " as worker ", message.joined().worker_id());
      return absl::OkStatus();
    case v1::CoordinatorMessage::kRefusal:
      if (message.refusal().start_afresh()) return absl::AbortedError(message.refusal().reason());
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator refuses this worker: ", message.refusal().reason()));
    case v1::CoordinatorMessage::kAssignment:
      return Begin(message.assignment());
    case v1::CoordinatorMessage::kStep:
      return Step(message.step());
    case v1::CoordinatorMessage::kEndEpoch:
      LogInfo("epoch ", message.end_epoch().epoch(), " ends: ", message.end_epoch().reason());
      runner_->End({message.end_epoch().epoch()}, message.end_epoch().reason());
      return device_status();  // the coordinator has heard of it
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

void GrpcSession::TakeJoined(const v1::Joined& message) {
  constexpr double kSecondsMax = 86400;
  const double drain = message.drain_seconds();
  MutexLock lock(&mutex_);
  if (drain >= 0 && drain <= kSecondsMax) drain_ = absl::Seconds(drain);
  if (!message.name().empty()) name_ = Printable(message.name());
}

WorkerSession::Snapshot GrpcSession::snapshot() const {
  Snapshot snapshot{.progress = runner_->progress()};
  MutexLock lock(&mutex_);
  snapshot.name = name_;
  snapshot.joined = stream_ != nullptr && joined_;
  return snapshot;
}

absl::Status GrpcSession::Begin(const v1::Assignment& message) {
  absl::StatusOr<AssignmentMessage> assigned = Decode(message);
  if (!assigned.ok()) {
    SendFailure({message.epoch()}, assigned.status(), -1);
    return absl::OkStatus();
  }
  EpochTask task{.assignment = std::move(assigned->assignment),
                 .link_secret = std::move(assigned->link_secret)};
  SetLogFields({{"worker", snapshot().name},
                {"epoch", absl::StrCat(task.assignment.epoch.value)},
                {"stage", absl::StrCat(task.assignment.stage)},
                {"rank", absl::StrCat(task.assignment.rank)}});
  LogInfo("epoch ", task.assignment.epoch.value, ": stage ", task.assignment.stage, ", rank ",
          task.assignment.rank, " of ", Describe(task.assignment.layout));
  join_->set_last_epoch(std::max(join_->last_epoch(), task.assignment.epoch.value));
  std::vector<std::string> names;
  for (const AssignedPeer& peer : assigned->peers) {
    const bool local = peer.host_id == join_->host_id();
    task.peers.push_back({.index = static_cast<int>(names.size()),
                          .name = Describe(peer),
                          .unix_socket = local ? peer.unix_socket : "",
                          .grpc_address = peer.link_address});
    names.push_back(peer.name);
  }
  {
    MutexLock lock(&mutex_);
    peers_epoch_ = task.assignment.epoch;
    peer_names_ = std::move(names);
  }
  runner_->Begin(std::move(task));
  return absl::OkStatus();
}

absl::Status GrpcSession::Step(const v1::Step& message) {
  absl::StatusOr<bellwether::Step> step = Decode(message);
  absl::Status wrong = step.status();
  if (step.ok() && !runner_->Add(*std::move(step)))
    wrong = absl::ResourceExhaustedError("too many steps are waiting");
  if (wrong.ok()) return absl::OkStatus();
  runner_->End({message.epoch()}, std::string(wrong.message()));
  SendFailure({message.epoch()}, wrong, -1);
  return absl::OkStatus();
}

// -- What the worker says

void GrpcSession::Send(const v1::WorkerMessage& message) {
  MutexLock write_lock(&write_mutex_);
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(&mutex_);
    stream = stream_;
  }
  // A failed write shows where the stream is read.
  if (stream != nullptr) stream->Write(message);
}

void GrpcSession::SendFailure(Epoch epoch, const absl::Status& status, int blamed) {
  v1::WorkerMessage message;
  v1::Failure* failure = message.mutable_failure();
  failure->set_epoch(epoch.value);
  failure->set_code(static_cast<int>(status.code()));
  failure->set_message(Printable({status.message().data(), status.message().size()}));
  failure->set_blamed_worker(PeerName(epoch, blamed));
  failure->set_of_some_peer(blamed == kSomePeer);
  Send(message);
}

void GrpcSession::SendHeartbeats() {
  bool leaving = false;  // and the coordinator knows it
  const auto news = [this, &leaving]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stream_ == nullptr || leaving != leave_until_.has_value();
  };
  while (true) {
    {
      MutexLock lock(&mutex_);
      mutex_.AwaitFor(news, kHeartbeatInterval);
      if (stream_ == nullptr) return;
    }
    if (!leaving && Leaving()) {
      SendLeaving();
      leaving = true;
    }
    StopIfNotLetGo();
    SendHeartbeat();
    pulse_.Turned();
  }
}

void GrpcSession::SendLeaving() {
  v1::WorkerMessage message;
  message.mutable_leaving();
  Send(message);
}

void GrpcSession::SendHeartbeat() {
  const EpochRunner::Progress progress = runner_->progress();
  v1::WorkerMessage message;
  v1::Heartbeat* beat = message.mutable_heartbeat();
  beat->set_epoch(progress.epoch.value);
  beat->set_state(Encode(progress.state));
  beat->set_loaded_bytes(progress.loaded_bytes);
  beat->set_total_bytes(progress.total_bytes);
  beat->set_step_id(progress.step);
  beat->set_layer(progress.layer);
  beat->set_waiting_for(PeerName(progress.epoch, progress.waiting_for));
  beat->set_waiting_for_some_peer(progress.waiting_for == kSomePeer);
  beat->set_progress(progress.counter);
  for (const EpochRunner::PeerWait& wait : progress.waits) {
    v1::PeerWait* out = beat->add_waits();
    out->set_peer(wait.index);
    out->set_seconds(absl::ToDoubleSeconds(wait.waited));
  }
  Send(message);
}

std::string GrpcSession::PeerName(Epoch epoch, int index) const {
  MutexLock lock(&mutex_);
  if (epoch != peers_epoch_ || index < 0 || index >= static_cast<int>(peer_names_.size())) return "";
  return peer_names_[index];
}

absl::Status CheckSecurity(const WorkerSession::Options& options) {
  // The coordinator asks for a certificate, and whoever answers as it must show one of the cluster's.
  if (options.tls.wanted() && (options.tls.certificate.empty() || options.tls.authority.empty()))
    return absl::InvalidArgumentError(
        "a worker needs all of --cluster-tls-certificate, --cluster-tls-key and --cluster-tls-authority");
  if (options.insecure || options.tls.wanted()) return absl::OkStatus();
  BW_RETURN_IF_ERROR(CheckPlaintext("--coordinator", options.coordinator, kTlsClusterFlags));
  if (options.link_listen.empty()) return absl::OkStatus();
  return CheckPlaintext("--link-listen", options.link_listen, kTlsClusterFlags);
}

absl::StatusOr<std::shared_ptr<GrpcSession>> StartSession(const WorkerSession::Options& options) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<LinkListener> links,
                      LinkListener::Start({.grpc_listen_address = options.link_listen, .tls = options.tls}));
  BW_ASSIGN_OR_RETURN(ChannelSecurity security, TlsClient(options.tls, /*follow_files=*/true));
  BW_ASSIGN_OR_RETURN(std::unique_ptr<const ShardCache> cache, FindShardCache(options.shard_cache));
  return std::make_shared<GrpcSession>(options, std::move(security), std::move(links), std::move(cache));
}

// A session after the other: where the coordinator says so, a new one begins that has seen no epoch.
class RestartingSession : public WorkerSession {
 public:
  RestartingSession(Options options, std::shared_ptr<GrpcSession> first)
      : options_(std::move(options)), session_(std::move(first)) {}

  absl::Status Run() override {
    while (true) {
      absl::Status status = Current()->Run();
      if (!absl::IsAborted(status)) return status;
      LogWarning("starting afresh: ", status.message());
      Replace(nullptr);  // before the next one takes its port
      BW_ASSIGN_OR_RETURN(auto next, StartSession(options_));
      if (!Replace(std::move(next))) return absl::OkStatus();
    }
  }
  void Leave() override {
    const auto session = Current();
    session != nullptr ? session->Leave() : Stop();
  }
  void Stop() override {
    {
      MutexLock lock(&mutex_);
      stopped_ = true;
    }
    if (const auto session = Current()) session->Stop();
  }
  // Under the lock: a session that is to end must not be held by who looks at it.
  Snapshot snapshot() const override {
    MutexLock lock(&mutex_);
    return session_ != nullptr ? session_->snapshot() : Snapshot{.name = options_.name};
  }

 private:
  std::shared_ptr<GrpcSession> Current() const {
    MutexLock lock(&mutex_);
    return session_;
  }
  // False if there was a Stop, which the new one knows nothing of.
  bool Replace(std::shared_ptr<GrpcSession> session) {
    MutexLock lock(&mutex_);
    session_.swap(session);  // the old one ends after the lock
    return !stopped_;
  }

  const Options options_;
  mutable Mutex mutex_;
  std::shared_ptr<GrpcSession> session_ ABSL_GUARDED_BY(mutex_);  // null between two
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerSession>> WorkerSession::Start(Options options) {
  BW_RETURN_IF_ERROR(Annotate(ParseHostPort(options.coordinator).status(), "coordinator"));
  BW_RETURN_IF_ERROR(CheckSecurity(options));
  BW_ASSIGN_OR_RETURN(std::shared_ptr<GrpcSession> first, StartSession(options));
  return std::make_unique<RestartingSession>(std::move(options), std::move(first));
}

}  // namespace bellwether
