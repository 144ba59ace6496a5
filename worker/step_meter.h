#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <type_traits>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/mutex.h"

namespace bellwether {

// What a worker's thread spends its time on. `kAway`: it has no layout that is up.
enum class StepPart : uint8_t { kAway, kCompute, kCollectiveWait, kLinkWait, kWeightsWait, kIdle };
inline constexpr size_t kStepParts = 6;

// Where the time of a worker's steps goes, and what it says to others: counts since the worker began. The
// executor's thread writes and never waits; anybody may read at any time.
class StepMeter {
 public:
  // What a message between workers is for.
  enum class Use : uint8_t { kCollective, kPipeline };
  static constexpr size_t kUses = 2;
  static StepPart WaitOf(Use use) {
    return use == Use::kCollective ? StepPart::kCollectiveWait : StepPart::kLinkWait;
  }

  explicit StepMeter(const Clock* clock = Clock::Real()) : clock_(clock) {}
  StepMeter(const StepMeter&) = delete;

  // -- The executor's thread

  struct Entered {
    StepPart before;     // that was left
    absl::Duration now;  // of the clock
  };
  // From now on its time goes to `part`.
  Entered Enter(StepPart part);
  void CountStep() { Add(steps_, 1); }
  void CountSent(Use use, int64_t bytes) { Add(sent_[static_cast<size_t>(use)], bytes); }
  void CountReceived(Use use, int64_t bytes) { Add(received_[static_cast<size_t>(use)], bytes); }
  // Of a peer, by its flat index; since ForgetPeers.
  void CountWait(int peer, absl::Duration waited) {
    if (static_cast<size_t>(peer) < peer_waits_.size())
      Add(peer_waits_[peer], absl::ToInt64Nanoseconds(waited));
  }
  // Another layout: the indices mean other workers.
  void ForgetPeers();

  // -- Any thread

  // None of it ever goes back.
  struct Reading {
    std::array<absl::Duration, kStepParts> parts;  // the one that goes on included
    uint64_t steps = 0;
    std::array<int64_t, kUses> sent_bytes{}, received_bytes{};
  };
  Reading Read() const;
  absl::Duration peer_wait(int peer) const { return absl::Nanoseconds(peer_waits_[peer].load()); }

 private:
  // Nanoseconds of each part until `since`, when `part` was entered.
  struct Times {
    std::array<std::atomic<int64_t>, kStepParts> parts{};
    std::atomic<int64_t> since{0};
    std::atomic<StepPart> part{StepPart::kAway};
  };
  // There is one writer.
  template <typename T>
  static void Add(std::atomic<T>& number, std::type_identity_t<T> by) {
    number.store(number.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  Reading ReadNow() const;

  const Clock* const clock_;
  // Times are read as one: the writer fills one of the two while the other counts, which the version names.
  std::array<Times, 2> times_;
  std::atomic<uint64_t> version_{0};

  std::atomic<uint64_t> steps_{0};
  std::array<std::atomic<int64_t>, kUses> sent_{}, received_{};
  std::array<std::atomic<int64_t>, kWorkersMax> peer_waits_{};  // nanoseconds

  mutable Mutex mutex_;  // of readers
  mutable Reading last_ ABSL_GUARDED_BY(mutex_);
};

// A wait for a peer, as long as this lives.
class MeasuredWait {
 public:
  MeasuredWait(StepMeter* meter, StepPart part, int peer)
      : meter_(meter), peer_(peer), entered_(meter->Enter(part)) {}
  MeasuredWait(const MeasuredWait&) = delete;
  ~MeasuredWait() { meter_->CountWait(peer_, meter_->Enter(entered_.before).now - entered_.now); }

 private:
  StepMeter* const meter_;
  const int peer_;
  const StepMeter::Entered entered_;
};

}  // namespace bellwether
