#include "coordinator/engine_loop.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace bellwether {
namespace {

// The loop turns at least so often, for whoever watches it.
constexpr absl::Duration kTurnMax = absl::Seconds(1);

}  // namespace

EngineLoop::EngineLoop(EngineOptions engine, const Tokenizer* tokenizer, Options options)
    : options_(std::move(options)), engine_(std::move(engine), tokenizer), thread_([this] { Run(); }) {}

EngineLoop::~EngineLoop() { Stop(); }

absl::Status EngineLoop::Submit(EngineRequest request, std::shared_ptr<RequestObserver> observer) {
  observer = options_.observe(request, std::move(observer));
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  if (arrivals_ >= options_.arrivals_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(options_.arrivals_max, " requests are waiting to be looked at; try again later"));
  }
  ++arrivals_;
  queue_.push_back({RequestArrived{std::move(request)}, std::move(observer)});
  return absl::OkStatus();
}

void EngineLoop::Post(Event event) {
  MutexLock lock(&mutex_);
  if (!stopping_) queue_.push_back({std::move(event), nullptr});
}

EngineSnapshot EngineLoop::snapshot() const {
  MutexLock lock(&mutex_);
  return snapshot_;
}

bool EngineLoop::WaitUntilIdle(absl::Duration timeout) const {
  MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (idle_ && queue_.empty());
  };
  return mutex_.AwaitFor(idle, timeout);
}

void EngineLoop::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void EngineLoop::Run() {
  while (true) {
    std::vector<Item> items = NextItems();
    if (items.empty()) break;
    for (Item& item : items) {
      if (const auto* arrived = std::get_if<RequestArrived>(&item.event)) {
        const RequestId id = arrived->request.id;
        observers_.emplace(id, std::move(item.observer));
        Handle(std::move(item.event));
        if (const auto taken = observers_.find(id); taken != observers_.end()) taken->second->OnAccepted();
      } else {
        Handle(std::move(item.event));
      }
    }
    MutexLock lock(&mutex_);
    next_tick_ = engine_.next_tick();
    idle_ = engine_.idle();
    snapshot_ = engine_.snapshot();
  }
  for (auto& [id, observer] : observers_) {
    observer->OnDone(absl::UnavailableError("the server is shutting down"), {}, 0);
  }
  observers_.clear();
}

std::vector<EngineLoop::Item> EngineLoop::NextItems() {
  MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !queue_.empty(); };
  absl::Duration wait;
  do {
    pulse_.Turned();
    wait = std::max(absl::ZeroDuration(), next_tick_ - options_.clock->Now());
  } while (!mutex_.AwaitFor(ready, std::min(wait, kTurnMax)) && wait > kTurnMax);
  std::vector<Item> items(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
  queue_.clear();
  arrivals_ = 0;
  // What was accepted before Stop is handled: its observers are told below.
  if (items.empty() && !stopping_) items.push_back({Tick{}, nullptr});
  if (!items.empty()) idle_ = false;
  return items;
}

void EngineLoop::Handle(Event event) {
  int interrupted = 0;
  for (Action& action : engine_.Handle(std::move(event), options_.clock->Now())) {
    interrupted += std::holds_alternative<Interrupted>(action) ? 1 : 0;
    Carry(std::move(action));
  }
  if (interrupted > 0) LogInfo("requests that wait for workers, to go on then: ", interrupted);
}

void EngineLoop::Carry(Action action) {
  if (const auto* send = std::get_if<SendStep>(&action)) {
    options_.send_step(send->step);
  } else if (auto* tokens = std::get_if<EmitTokens>(&action)) {
    observers_.at(tokens->request)->OnTokens(std::move(tokens->chunk));
  } else if (auto* scores = std::get_if<EmitScores>(&action)) {
    observers_.at(scores->request)->OnScores(std::move(scores->logprobs), std::move(scores->best));
  } else if (const auto* interrupted = std::get_if<Interrupted>(&action)) {
    observers_.at(interrupted->request)->OnInterrupted(interrupted->reason);
  } else if (const auto* done = std::get_if<RequestDone>(&action)) {
    const auto observer = observers_.extract(done->request);
    observer.mapped()->OnDone(done->status, done->usage, done->seed);
  } else if (const auto* failed = std::get_if<FailEpoch>(&action)) {
    options_.fail_epoch(failed->epoch, failed->reason);
  }
}

}  // namespace bellwether
