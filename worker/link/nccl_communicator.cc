#include "worker/link/nccl_communicator.h"

#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace bellwether {
namespace {

// A decode step takes some milliseconds: waits stay awake for as long, as a nap may end late. What either
// costs nobody has measured.
constexpr absl::Duration kAwake = absl::Milliseconds(10);
constexpr absl::Duration kNap = absl::Microseconds(50);

}  // namespace

// Calls `on_late` unless it is gone within `limit`: for calls that may hang where nothing can wake them.
class NcclCommunicator::Watchdog {
 public:
  Watchdog(absl::Duration limit, std::function<void()> on_late)
      : thread_([this, limit, late = std::move(on_late)] {
          {
            MutexLock lock(&mutex_);
            const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return over_; };
            if (mutex_.AwaitFor(over, limit)) return;
          }
          late();
        }) {}
  ~Watchdog() {
    {
      MutexLock lock(&mutex_);
      over_ = true;
    }
    thread_.join();
  }

 private:
  Mutex mutex_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

NcclCommunicator::NcclCommunicator(Options options) : options_(std::move(options)) {
  BW_CHECK(options_.library != nullptr && options_.ops != nullptr);
  BW_CHECK(0 <= options_.rank && options_.rank < options_.size);
}

// Always an abort, never NCCL's orderly end: an epoch ends because somebody is gone, and the orderly end
// would wait for everybody.
NcclCommunicator::~NcclCommunicator() {
  options_.ops->WaitBy(nullptr);
  std::unique_ptr<Watchdog> owner_watched;
  {
    MutexLock lock(&mutex_);
    owner_watched = std::move(owner_watched_);
  }
  owner_watched.reset();
  if (communicator_ == nullptr) return;
  const Watchdog watchdog(options_.abort_limit, options_.on_stuck);
  (void)options_.library->call().comm_abort(communicator_);
  // Memory is not given back before the kernels that use it are gone.
  absl::StatusOr<bool> done = options_.ops->runtime().Done();
  for (; done.ok() && !*done; done = options_.ops->runtime().Done()) std::this_thread::yield();
}

absl::Status NcclCommunicator::Connect(const nccl::UniqueId& id, absl::Span<const int> peers) {
  absl::StatusOr<float*> rows = options_.ops->Allocate(2 * static_cast<int64_t>(peers.size()));
  BW_RETURN_IF_ERROR(rows.status());
  BW_RETURN_IF_ERROR(Start(id));
  std::vector<Transfer> transfers;
  for (size_t i = 0; i < peers.size(); ++i) {
    transfers.push_back({.peer = peers[i], .from = *rows + 2 * i, .floats = 1});
    transfers.push_back({.peer = peers[i], .to = *rows + 2 * i + 1, .floats = 1});
  }
  BW_RETURN_IF_ERROR(Exchange(transfers));
  BW_RETURN_IF_ERROR(options_.ops->Finish());
  connected_ = true;
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Start(const nccl::UniqueId& id) {
  BW_CHECK(communicator_ == nullptr);
  // Also makes the device the current one of this thread, which is the one that NCCL takes.
  BW_RETURN_IF_ERROR(options_.ops->runtime().Done().status());
  {
    MutexLock lock(&mutex_);
    if (!abort_reason_.ok()) return abort_reason_;
    joins_ = true;
  }
  nccl::Config config;
  const std::string what = absl::StrCat("joining as rank ", options_.rank, " of ", options_.size);
  const int result = options_.library->call().comm_init_rank_config(&communicator_, options_.size, id,
                                                                    options_.rank, &config);
  if (result != nccl::kInProgress) {
    BW_RETURN_IF_ERROR(options_.library->StatusOf(result, what, communicator_));
  }
  BW_RETURN_IF_ERROR(WaitUntilReady(what, options_.connect_limit));
  options_.ops->WaitBy([this] { return WaitForStream(); });
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Exchange(absl::Span<const Transfer> transfers) {
  return transfers.empty() ? absl::OkStatus() : Noted(TryExchange(transfers));
}

absl::Status NcclCommunicator::TryExchange(absl::Span<const Transfer> transfers) {
  BW_RETURN_IF_ERROR(Ready("before copies").status());
  options_.ops->Submit();
  BW_RETURN_IF_ERROR(Enqueue(transfers));
  return WaitUntilReady("giving it copies", options_.wait_limit);
}

absl::Status NcclCommunicator::Enqueue(absl::Span<const Transfer> transfers) {
  const NcclLibrary& library = *options_.library;
  void* const stream = options_.ops->runtime().stream();
  int result = library.call().group_start();
  for (const Transfer& transfer : transfers) {
    if (result != nccl::kSuccess && result != nccl::kInProgress) break;
    const auto count = static_cast<size_t>(transfer.floats);
    result = transfer.to == nullptr ? library.call().send(transfer.from, count, nccl::kFloat32, transfer.peer,
                                                          communicator_, stream)
                                    : library.call().receive(transfer.to, count, nccl::kFloat32,
                                                             transfer.peer, communicator_, stream);
  }
  const int end = library.call().group_end();  // a group that was begun is ended, whatever happened in it
  if (result == nccl::kSuccess || result == nccl::kInProgress) result = end;
  if (result == nccl::kInProgress) return absl::OkStatus();
  return library.StatusOf(result, "copies", communicator_);
}

absl::Status NcclCommunicator::WaitUntilReady(const std::string& what, absl::Duration limit) {
  return WaitUntil([&] { return Ready(what); }, what, limit);
}

absl::Status NcclCommunicator::WaitForStream() {
  const auto done = [this]() -> absl::StatusOr<bool> {
    BW_RETURN_IF_ERROR(Ready("work on the GPU").status());
    return options_.ops->runtime().Done();
  };
  return WaitUntil(done, "work on the GPU", options_.wait_limit);
}

absl::Status NcclCommunicator::WaitUntil(absl::FunctionRef<absl::StatusOr<bool>()> done,
                                         const std::string& what, absl::Duration limit) {
  const absl::Duration start = options_.clock->Now();
  options_.waiting(true);
  absl::Status status;
  while (true) {
    const absl::StatusOr<bool> is_done = done();
    status = is_done.status();
    if (!status.ok() || *is_done) break;
    const absl::Duration waited = options_.clock->Now() - start;
    if (waited >= limit) {
      status = absl::DeadlineExceededError(
          absl::StrCat("NCCL, ", what, ": rank ", options_.rank, " of ", options_.size, " waited ",
                       absl::FormatDuration(waited), "; a peer has stopped, or the GPU has"));
      break;
    }
    Pause(waited);
  }
  options_.waiting(false);
  return Noted(std::move(status));
}

absl::Status NcclCommunicator::Noted(absl::Status status) {
  lost_a_peer_ |= absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  return status;
}

absl::StatusOr<bool> NcclCommunicator::Ready(const std::string& what) {
  if (aborted_.load(std::memory_order_acquire)) {
    MutexLock lock(&mutex_);
    return abort_reason_;
  }
  int state = nccl::kSuccess;
  const int result = options_.library->call().comm_get_async_error(communicator_, &state);
  BW_RETURN_IF_ERROR(options_.library->StatusOf(result, what, communicator_));
  if (state == nccl::kInProgress) return false;
  BW_RETURN_IF_ERROR(options_.library->StatusOf(state, what, communicator_));
  return true;
}

void NcclCommunicator::Pause(absl::Duration waited) {
  if (waited < kAwake) return std::this_thread::yield();
  MutexLock lock(&mutex_);
  const auto aborted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !abort_reason_.ok(); };
  (void)mutex_.AwaitFor(aborted, kNap);
}

void NcclCommunicator::Abort(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (!abort_reason_.ok()) return;
  abort_reason_ = reason;
  aborted_.store(true, std::memory_order_release);
  if (joins_) owner_watched_ = std::make_unique<Watchdog>(options_.abort_limit, options_.on_stuck);
}

}  // namespace bellwether
