#include "worker/epoch_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/thread_pool.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

// Many more than the stages of a pipeline can have in flight.
constexpr size_t kStepsMax = 4096;
// Peers may take long to load; whoever fails meanwhile ends the epoch through the coordinator.
constexpr absl::Duration kConnectLimit = absl::Hours(1);
constexpr int kSpinPauses = 1000;

const char* Place(WeightHome streamed) {
  return streamed == WeightHome::kHost ? "in the host's memory" : "on the drive";
}

}  // namespace

EpochRunner::EpochRunner(Options options)
    : options_(std::move(options)),
      write_behind_(options_.cache == nullptr ? nullptr : std::make_unique<WriteBehind>(options_.cache)),
      thread_([this] { Run(); }) {}

EpochRunner::~EpochRunner() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  End({}, "the worker is stopping");
  thread_.join();
}

void EpochRunner::Begin(EpochTask task) {
  End({}, "a new epoch begins");
  MutexLock lock(&mutex_);
  wanted_ = task.assignment.epoch;
  next_ = std::move(task);
}

bool EpochRunner::Add(Step step) {
  MutexLock lock(&mutex_);
  if (step.epoch != wanted_) return true;
  if (steps_.size() >= kStepsMax) return false;
  steps_.push_back(std::move(step));
  return true;
}

void EpochRunner::End(Epoch epoch, const std::string& reason) {
  StageExecutor* executor = nullptr;
  {
    MutexLock lock(&mutex_);
    if (wanted_.value == 0 || (epoch.value != 0 && epoch != wanted_)) return;
    epoch = std::exchange(wanted_, {});
    next_.reset();
    steps_.clear();
    executor = executor_.get();
    ++aborting_;
  }
  options_.links->Cancel(epoch);
  if (executor != nullptr) executor->Abort(absl::CancelledError(reason));
  MutexLock lock(&mutex_);
  --aborting_;
}

EpochRunner::Progress EpochRunner::progress() const {
  MutexLock lock(&mutex_);
  Progress progress{.epoch = wanted_,
                    .counter = progress_.counter,
                    .weight_bytes = weight_bytes_,
                    .kv_bytes = kv_bytes_,
                    .streamed_bytes = progress_.streamed_bytes,
                    .unwritten_images = write_behind_ == nullptr ? 0 : write_behind_->left(),
                    .times = progress_.meter.Read(),
                    .stream = progress_.stream->Read()};
  if (up_ != nullptr) {
    progress.last_stage = up_->stage;
    progress.last_rank = up_->rank;
  }
  // Of an epoch that has not begun there is nothing to tell: what the thread still does belongs to the last.
  if (progress_.epoch != wanted_.value) return progress;
  progress.state = state_;
  progress.waiting_for = progress_.waiting_for;
  progress.step = progress_.step;
  progress.layer = progress_.layer;
  progress.loaded_bytes = progress_.loaded_bytes;
  progress.total_bytes = progress_.total_bytes;
  progress.waits = Waits();
  return progress;
}

std::vector<EpochRunner::PeerWait> EpochRunner::Waits() const {
  std::vector<PeerWait> waits;
  if (up_ == nullptr || up_->epoch != wanted_) return waits;
  const Layout& layout = up_->layout;
  for (const int index : LinkedWorkers(*up_)) {
    PeerWait wait{.index = index, .waited = progress_.meter.peer_wait(index)};
    for (wait.rank = index; wait.rank >= static_cast<int>(layout.stages[wait.stage].ranks.size());
         ++wait.stage) {
      wait.rank -= static_cast<int>(layout.stages[wait.stage].ranks.size());
    }
    waits.push_back(wait);
  }
  return waits;
}

void EpochRunner::Leave() {
  state_ = WorkerState::kJoined;
  kv_bytes_ = 0;
  progress_.meter.Enter(StepPart::kAway);
}

std::optional<HeldPart> EpochRunner::held() const {
  MutexLock lock(&mutex_);
  return held_;
}

void EpochRunner::SetHeld(std::optional<HeldPart> held) {
  MutexLock lock(&mutex_);
  held_ = std::move(held);
  weight_bytes_ = held_ ? shard_->ResidentBytes() : 0;
}

bool EpochRunner::Wanted(Epoch epoch) const {
  MutexLock lock(&mutex_);
  return wanted_ == epoch;
}

void EpochRunner::SetState(WorkerState state) {
  MutexLock lock(&mutex_);
  state_ = state;
}

void EpochRunner::Run() {
  // It is thread 0 of the executor's pool. But NCCL's threads, of which every group of copies starts one, may
  // run where the thread that calls it may: they would wait for a CPU that it spins on.
  if (!options_.cpus.empty() && options_.nccl.library == nullptr) PinCurrentThread(options_.cpus[0]);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool over = executor_ != nullptr && executor_epoch_ != wanted_;
    const bool steps = executor_ != nullptr && !steps_.empty();
    return aborting_ == 0 && (stopping_ || next_ || over || steps);
  };
  while (true) {
    std::optional<EpochTask> task;
    std::optional<Step> step;
    std::unique_ptr<StageExecutor> ended;
    bool stopping = false;
    {
      MutexLock lock(&mutex_);
      mutex_.Await(ready);
      stopping = stopping_;
      if (stopping || (executor_ != nullptr && executor_epoch_ != wanted_)) {
        ended = std::move(executor_);
        Leave();
      } else if (next_) {
        task = std::exchange(next_, std::nullopt);
      } else {
        step = std::move(steps_.front());
        steps_.pop_front();
      }
    }
    if (stopping) return;
    if (task) Start(*task);
    if (step) RunStep(*step);
  }
}

void EpochRunner::Start(const EpochTask& task) {
  const Epoch epoch = task.assignment.epoch;
  progress_.failed_peer = -1;
  progress_.waiting_for = -1;
  progress_.loaded_bytes = progress_.total_bytes = 0;  // a shard that is still there is not loaded again
  SetState(WorkerState::kLoading);
  progress_.epoch = epoch.value;
  if (const absl::Status status = Prepare(task); !status.ok()) return Fail(epoch, status);
  stream_report_.Begin(options_.clock->Now(), StreamCounts());
}

absl::Status EpochRunner::Prepare(const EpochTask& task) {
  const Assignment& assignment = task.assignment;
  if (shard_ == nullptr || !shard_->Serves(assignment)) {
    SetHeld(std::nullopt);
    BW_ASSIGN_OR_RETURN(const Checkpoint* checkpoint, options_.models->Find(assignment.model_id));
    BW_RETURN_IF_ERROR(Validate(assignment.layout, checkpoint->config()));
    std::vector<UnwrittenImage> unwritten;
    std::shared_ptr<const LoadedShard> unfinished;
    const bool cached = options_.cache_all || assignment.StreamsFromDrive();
    auto loaded = LoadShard(*checkpoint, assignment, *options_.device,
                            {.threads = options_.threads,
                             .cpus = options_.cpus,
                             .cancelled = [&] { return !Wanted(assignment.epoch); },
                             .cache = cached ? options_.cache : nullptr,
                             .unwritten = &unwritten,
                             .previous = std::move(shard_),  // what stays is taken over
                             .unfinished = &unfinished},
                            &progress_);
    shard_ = loaded.ok() ? *loaded : std::move(unfinished);
    if (write_behind_ != nullptr) write_behind_->Add(std::move(unwritten));
    if (!loaded.ok()) return loaded.status();
  }
  SetHeld(HeldPart{.model_id = assignment.model_id,
                   .quantize = assignment.numeric.quantize,
                   .layout = std::make_shared<const Layout>(assignment.layout),
                   .stage = assignment.stage,
                   .rank = assignment.rank});
  if (!Wanted(assignment.epoch)) return absl::OkStatus();
  SetState(WorkerState::kLinking);
  StageExecutor::Options options{.assignment = assignment,
                                 .device = options_.device,
                                 .shard = shard_,
                                 .progress = &progress_,
                                 .nccl = options_.nccl,
                                 .cpus = options_.cpus,
                                 .verify_always = options_.verify_always};
  BW_ASSIGN_OR_RETURN(options.links, Connect(task));
  BW_ASSIGN_OR_RETURN(std::unique_ptr<StageExecutor> made, StageExecutor::Create(std::move(options)));
  StageExecutor* const executor = made.get();
  {
    MutexLock lock(&mutex_);
    if (wanted_ != assignment.epoch) {
      state_ = WorkerState::kJoined;
      return absl::OkStatus();
    }
    executor_ = std::move(made);  // from now on it can be aborted
    executor_epoch_ = assignment.epoch;
  }
  BW_RETURN_IF_ERROR(executor->Start());
  const int64_t kv_bytes = executor->kv_bytes();
  progress_.meter.ForgetPeers();
  reports_ = assignment.last_stage() && assignment.rank == 0;
  {
    MutexLock lock(&mutex_);
    kv_bytes_ = kv_bytes;
    if (wanted_ != assignment.epoch) {
      state_ = WorkerState::kJoined;
      return absl::OkStatus();
    }
    state_ = WorkerState::kReady;
    up_ = std::make_shared<const Assignment>(assignment);
    progress_.meter.Enter(StepPart::kIdle);
  }
  LogInfo("ready in epoch ", assignment.epoch.value, ": stage ", assignment.stage, ", rank ", assignment.rank,
          ", ", shard_->bytes >> 20, " MiB of weights, ", shard_->streamed_bytes >> 20, " of them ",
          Place(shard_->stream_home), ", ", kv_bytes >> 20, " MiB of KV cache");
  options_.events.ready(assignment.epoch, *shard_, kv_bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::unique_ptr<Link>>> EpochRunner::Connect(const EpochTask& task) {
  const Assignment& assignment = task.assignment;
  std::vector<std::unique_ptr<Link>> links(task.peers.size());
  const std::vector<int> linked = LinkedWorkers(assignment);
  if (linked.empty()) return links;
  LinkListener::Request request{.epoch = assignment.epoch,
                                .secret = task.link_secret,
                                .own_index = FlatIndex(assignment.layout, assignment.stage, assignment.rank),
                                .connect_limit = kConnectLimit,
                                .wait_limit = assignment.step_deadline,
                                .spin_pauses = assignment.cores_are_short ? 0 : kSpinPauses};
  for (const int index : linked) request.peers.push_back(task.peers[index]);
  BW_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Link>> made, options_.links->Connect(request));
  BW_CHECK_EQ(made.size(), linked.size());
  for (size_t i = 0; i < linked.size(); ++i) links[linked[i]] = std::move(made[i]);
  return links;
}

void EpochRunner::RunStep(const Step& step) {
  StageExecutor* executor = nullptr;
  {
    MutexLock lock(&mutex_);
    executor = executor_.get();  // only this thread takes it away
    state_ = WorkerState::kStep;
  }
  const absl::StatusOr<StepResult> result = executor->Run(step);
  {
    MutexLock lock(&mutex_);
    if (steps_.empty()) state_ = WorkerState::kReady;
  }
  if (!result.ok()) return Fail(step.epoch, result.status());
  if (reports_) options_.events.result(*result);
  if (shard_->streamed_bytes > 0) ReportStreaming();
}

StreamReport::Counts EpochRunner::StreamCounts() const {
  return {.streamed_bytes = progress_.streamed_bytes,
          .times = progress_.meter.Read(),
          .stream = progress_.stream->Read()};
}

void EpochRunner::ReportStreaming() {
  const absl::Duration now = options_.clock->Now();
  if (!stream_report_.IsDue(now)) return;
  LogInfo(stream_report_.Line(now, StreamCounts()));
}

void EpochRunner::Fail(Epoch epoch, const absl::Status& status) {
  // Ends before anybody hears of the failure: work of NCCL's that waits for a peer would hold up whoever
  // looks at the device.
  std::unique_ptr<StageExecutor> ended;
  {
    MutexLock lock(&mutex_);
    const auto nobody_aborts = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return aborting_ == 0; };
    mutex_.Await(nobody_aborts);
    ended = std::move(executor_);
    Leave();
    if (wanted_ != epoch) return;
    wanted_ = {};
    steps_.clear();
  }
  ended.reset();
  options_.links->Cancel(epoch);
  LogError("epoch ", epoch.value, ": ", status.ToString());
  options_.events.failed(epoch, status, progress_.failed_peer);
}

}  // namespace bellwether
