#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "worker/device/gpu_ops.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// One of the GPU workers that NCCL joins for an epoch, as its executor sees it: copies between the memories
// of their devices, never a sum of NCCL's, whose order moves with size and channels.
//
// The communicator never blocks, and no wait for it or for the stream is without an end: every one looks at
// the stream, at NCCL's asynchronous error, at Abort and at the limit. Only the thread that owns this calls
// NCCL; it is not captured in graphs (a graph that holds it would have to go before an abort can end).
class NcclCommunicator {
 public:
  struct Options {
    std::shared_ptr<const NcclLibrary> library;
    int rank = 0;  // of this worker in the communicator
    int size = 1;
    GpuOps* ops = nullptr;  // outlives this; its waits for the stream become this one's
    absl::Duration connect_limit = absl::Minutes(2);
    absl::Duration wait_limit = absl::Seconds(30);
    // Called at the beginning and at the end of waits that others may be the reason of.
    std::function<void(bool waits)> waiting = [](bool) {};
    // The owner has not begun to destroy this within abort_limit of Abort, as where a launch waits for a
    // place in the driver's queue behind work that waits for a peer; or NCCL or the driver have not ended the
    // abort within it. Neither will: the process has to end. Called from a thread of this's.
    absl::Duration abort_limit = absl::Seconds(10);
    std::function<void()> on_stuck = [] {};
    const Clock* clock = Clock::Real();
  };
  // Sends `floats` values at `from` to `peer` if `to` is null, else receives as many from it. Between two
  // ranks, and of a rank with itself, sends and receives match in order.
  struct Transfer {
    int peer = 0;
    const float* from = nullptr;
    float* to = nullptr;
    int64_t floats = 0;
  };

  explicit NcclCommunicator(Options options);
  // Aborts the communicator, ended or not, and waits until the stream is empty.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  // Once. Joins the others, who do the same, and opens the ways to `peers` (those for whom this rank is one
  // of their peers): NCCL would open them when first used.
  absl::Status Connect(const nccl::UniqueId& id, absl::Span<const int> peers);
  bool connected() const { return connected_; }
  // Whether an error of this was that a peer, or the way to it, was lost. NCCL does not tell which.
  bool lost_a_peer() const { return lost_a_peer_; }

  // One group of copies, in order with the operations of `ops`, of whose rows it may read and write any; the
  // peers do the opposite. May return before it is done. An error is the end of this communicator.
  absl::Status Exchange(absl::Span<const Transfer> transfers);

  // From any thread: what waits, and all that follows, fails with `reason`. This is to be destroyed then.
  void Abort(const absl::Status& reason);

 private:
  class Watchdog;

  absl::Status Start(const nccl::UniqueId& id);
  absl::Status TryExchange(absl::Span<const Transfer> transfers);
  absl::Status Enqueue(absl::Span<const Transfer> transfers);
  // Until NCCL has taken what it was given.
  absl::Status WaitUntilReady(const std::string& what, absl::Duration limit);
  absl::Status WaitForStream();
  absl::Status WaitUntil(absl::FunctionRef<absl::StatusOr<bool>()> done, const std::string& what,
                         absl::Duration limit);
  // The error of an abort, or NCCL's; else whether it has taken what it was given.
  absl::StatusOr<bool> Ready(const std::string& what);
  void Pause(absl::Duration waited);
  // `status`, taken note of.
  absl::Status Noted(absl::Status status);

  const Options options_;
  nccl::Communicator* communicator_ = nullptr;
  bool connected_ = false;
  bool lost_a_peer_ = false;

  std::atomic<bool> aborted_{false};
  Mutex mutex_;
  absl::Status abort_reason_ ABSL_GUARDED_BY(mutex_);
  bool joins_ ABSL_GUARDED_BY(mutex_) = false;                       // there is something of NCCL's to abort
  std::unique_ptr<Watchdog> owner_watched_ ABSL_GUARDED_BY(mutex_);  // from Abort on
};

}  // namespace bellwether
