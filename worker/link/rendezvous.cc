#include "worker/link/rendezvous.h"

#include <algorithm>
#include <utility>

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

void Rendezvous::Refuse(const Refusals& refusals) {
  for (const auto& [peer, reason] : refusals) peer->Refuse(reason);
}

void Rendezvous::Offer(std::unique_ptr<IncomingPeer> peer) {
  const Epoch epoch = peer->hello().epoch;
  absl::Status refusal;
  std::vector<std::unique_ptr<IncomingPeer>> gone;  // dropped without the lock
  {
    MutexLock lock(&mutex_);
    if (epoch < first_live_) refusal = EpochOver(epoch, first_live_);
    if (waiting_.size() >= kWaitingMax) {
      for (std::unique_ptr<IncomingPeer>& other : waiting_) {
        if (other->gone()) gone.push_back(std::move(other));
      }
      std::erase(waiting_, nullptr);
    }
    if (waiting_.size() >= kWaitingMax)
      refusal = absl::ResourceExhaustedError("too many workers wait for a link");
    if (refusal.ok()) {
      waiting_.push_back(std::move(peer));
      ++offers_;
      return;
    }
  }
  peer->Refuse(refusal);
}

void Rendezvous::Begin(Epoch epoch) {
  Refusals over;
  {
    MutexLock lock(&mutex_);
    first_live_ = std::max(first_live_, epoch);
    for (std::unique_ptr<IncomingPeer>& peer : waiting_) {
      const Epoch of = peer->hello().epoch;
      if (of < first_live_) over.emplace_back(std::move(peer), EpochOver(of, first_live_));
    }
    std::erase(waiting_, nullptr);
  }
  Refuse(over);
}

void Rendezvous::Cancel(Epoch epoch) { Begin({epoch.value + 1}); }

bool Rendezvous::cancelled(Epoch epoch) const {
  MutexLock lock(&mutex_);
  return epoch < first_live_;
}

std::unique_ptr<IncomingPeer> Rendezvous::Find(const LinkHello& wanted, Refusals* wrong) {
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
      wrong->emplace_back(std::move(peer),
                          absl::PermissionDeniedError("the link secret is not that of this cluster"));
    }
  }
  std::erase(waiting_, nullptr);
  return found;
}

absl::StatusOr<std::unique_ptr<IncomingPeer>> Rendezvous::Take(const LinkHello& hello, absl::Duration limit) {
  const absl::Duration deadline = Clock::Real()->Now() + limit;
  uint64_t seen = 0;
  for (bool in_time = true;;) {
    Refusals wrong;
    std::unique_ptr<IncomingPeer> found;
    {
      MutexLock lock(&mutex_);
      if (hello.epoch < first_live_)
        return absl::CancelledError(absl::StrCat("epoch ", hello.epoch.value, " is over"));
      found = Find(hello, &wrong);
      seen = offers_;
    }
    Refuse(wrong);
    if (found != nullptr) return found;
    if (!in_time) {
      return absl::DeadlineExceededError(absl::StrCat("no connection within ", absl::FormatDuration(limit)));
    }
    MutexLock lock(&mutex_);
    const auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return offers_ != seen || hello.epoch < first_live_;
    };
    in_time = mutex_.AwaitFor(changed, deadline - Clock::Real()->Now());
  }
}

}  // namespace bellwether
