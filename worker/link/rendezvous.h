#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "worker/link/link.h"

namespace bellwether {

// What a connecting worker says first.
struct LinkHello {
  Epoch epoch;
  int from = 0, to = 0;  // flat indices
  std::string secret;
};
inline constexpr size_t kLinkSecretBytesMax = 256;

// What a link needs that its two ends do not agree on.
struct LinkEndOptions {
  std::string peer;  // its name
  absl::Duration wait_limit;
  int spin_pauses = 0;
};

// A worker that has connected and waits to be let in. Dropping it closes the connection.
class IncomingPeer {
 public:
  virtual ~IncomingPeer() = default;
  virtual const LinkHello& hello() const = 0;
  // Whether it has gone again, so that nobody would hear an answer.
  virtual bool gone() const = 0;
  virtual absl::StatusOr<std::unique_ptr<Link>> Accept(const LinkEndOptions& options) = 0;
  virtual void Refuse(const absl::Status& reason) = 0;
};
// Called from threads of whoever listens.
using IncomingPeerHandler = std::function<void(std::unique_ptr<IncomingPeer>)>;

// A connection that this worker has opened and that waits for the answer. Dropping it closes the connection.
class OutgoingPeer {
 public:
  virtual ~OutgoingPeer() = default;
  // Looks for the answer for up to `limit`: nothing yet is a null link.
  virtual absl::StatusOr<std::unique_ptr<Link>> Poll(absl::Duration limit) = 0;
};

// Where workers that have connected meet the call that waits for them, whoever comes first. Any threads.
class Rendezvous {
 public:
  // Takes a peer in, or refuses it: its epoch is over, or too many wait.
  void Offer(std::unique_ptr<IncomingPeer> peer);

  // Epochs before this one are over: their peers are refused, and everyone who waits for them.
  void Begin(Epoch epoch);
  // This epoch is over as well: Take fails with Cancelled.
  void Cancel(Epoch epoch);
  bool cancelled(Epoch epoch) const;

  // Waits up to `limit` for the peer `hello` describes (peers with its numbers but another secret are
  // refused). DeadlineExceeded, or Cancelled.
  absl::StatusOr<std::unique_ptr<IncomingPeer>> Take(const LinkHello& hello, absl::Duration limit);

 private:
  // Peers to refuse once the mutex is released: that goes to a socket or to gRPC.
  using Refusals = std::vector<std::pair<std::unique_ptr<IncomingPeer>, absl::Status>>;
  static void Refuse(const Refusals& refusals);
  std::unique_ptr<IncomingPeer> Find(const LinkHello& hello, Refusals* wrong)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;  // never held while a peer is called
  std::deque<std::unique_ptr<IncomingPeer>> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t offers_ ABSL_GUARDED_BY(mutex_) = 0;          // so far
  Epoch first_live_ ABSL_GUARDED_BY(mutex_) = Epoch{0};  // smaller epochs are over
};

}  // namespace bellwether
