#include "worker/link/rendezvous.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace bellwether {
namespace {

// More than the workers of any layout; beyond it somebody plays tricks.
constexpr size_t kWaitingMax = 1024;

absl::Status EpochOver(Epoch epoch, Epoch first_live) {
  return absl::FailedPreconditionError(
      absl::StrCat("epoch ", epoch.value, " is over here, ", first_live.value, " is the first that is not"));
}

// Takes as long for a nearly right secret as for a wrong one.
bool SameSecret(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

void Rendezvous::Offer(std::unique_ptr<IncomingPeer> peer) {
  std::unique_lock<std::mutex> lock(mutex_);
  const Epoch epoch = peer->hello().epoch;
  absl::Status refusal;
  if (epoch < first_live_) refusal = EpochOver(epoch, first_live_);
  if (waiting_.size() >= kWaitingMax)
    refusal = absl::ResourceExhaustedError("too many workers wait for a link");
  if (!refusal.ok()) {
    lock.unlock();
    peer->Refuse(refusal);
    return;
  }
  waiting_.push_back(std::move(peer));
  changed_.notify_all();
}

void Rendezvous::Begin(Epoch epoch) {
  std::lock_guard<std::mutex> lock(mutex_);
  first_live_ = std::max(first_live_, epoch);
  DropOldLocked();
}

void Rendezvous::Cancel(Epoch epoch) { Begin({epoch.value + 1}); }

bool Rendezvous::cancelled(Epoch epoch) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return epoch < first_live_;
}

void Rendezvous::DropOldLocked() {
  for (std::unique_ptr<IncomingPeer>& peer : waiting_) {
    if (peer->hello().epoch >= first_live_) continue;
    peer->Refuse(EpochOver(peer->hello().epoch, first_live_));
    peer.reset();
  }
  std::erase(waiting_, nullptr);
  changed_.notify_all();
}

std::unique_ptr<IncomingPeer> Rendezvous::FindLocked(const LinkHello& wanted) {
  std::unique_ptr<IncomingPeer> found;
  for (std::unique_ptr<IncomingPeer>& peer : waiting_) {
    const LinkHello& hello = peer->hello();
    if (found != nullptr || hello.epoch != wanted.epoch || hello.from != wanted.from ||
        hello.to != wanted.to) {
      continue;
    }
    if (SameSecret(hello.secret, wanted.secret)) {
      found = std::move(peer);
    } else {
      peer->Refuse(absl::PermissionDeniedError("the link secret is not that of this cluster"));
      peer.reset();
    }
  }
  std::erase(waiting_, nullptr);
  return found;
}

absl::StatusOr<std::unique_ptr<IncomingPeer>> Rendezvous::Take(const LinkHello& hello, absl::Duration limit) {
  const absl::Duration deadline = Clock::Real()->Now() + limit;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (hello.epoch < first_live_)
      return absl::CancelledError(absl::StrCat("epoch ", hello.epoch.value, " is over"));
    if (std::unique_ptr<IncomingPeer> found = FindLocked(hello)) return found;
    const absl::Duration left = deadline - Clock::Real()->Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat("no connection within ", absl::FormatDuration(limit)));
    }
    changed_.wait_for(lock, absl::ToChronoNanoseconds(left));
  }
}

}  // namespace bellwether
