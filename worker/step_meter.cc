#include "worker/step_meter.h"

#include <algorithm>

namespace bellwether {
namespace {

// Of a reader that the writer overtakes, which takes it two entries in the time of a few loads.
constexpr int kReadsMax = 10000;

}  // namespace

StepMeter::Entered StepMeter::Enter(StepPart part) {
  const absl::Duration now = clock_->Now();
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(now);
  const uint64_t version = version_.load(std::memory_order_relaxed);
  const Times& from = times_[version % 2];
  Times& to = times_[(version + 1) % 2];
  const StepPart before = from.part.load(std::memory_order_relaxed);
  // Released, so that a reader who meets a new value sees that the version is new too.
  for (size_t i = 0; i < kStepParts; ++i) {
    const bool left = i == static_cast<size_t>(before);
    const int64_t spent = left ? nanoseconds - from.since.load(std::memory_order_relaxed) : 0;
    to.parts[i].store(from.parts[i].load(std::memory_order_relaxed) + spent, std::memory_order_release);
  }
  to.since.store(nanoseconds, std::memory_order_release);
  to.part.store(part, std::memory_order_release);
  version_.store(version + 1, std::memory_order_release);
  return {before, now};
}

void StepMeter::ForgetPeers() {
  for (auto& wait : peer_waits_) wait.store(0, std::memory_order_relaxed);
}

StepMeter::Reading StepMeter::Read() const {
  MutexLock lock(&mutex_);
  Reading reading = ReadNow();
  // A writer that is held up between its look at the clock and its entry has counted less than we just did.
  for (size_t i = 0; i < kStepParts; ++i) reading.parts[i] = std::max(reading.parts[i], last_.parts[i]);
  return last_ = reading;
}

StepMeter::Reading StepMeter::ReadNow() const {
  Reading reading;
  for (int i = 0; i < kReadsMax; ++i) {
    const uint64_t version = version_.load(std::memory_order_acquire);
    const Times& times = times_[version % 2];
    for (size_t part = 0; part < kStepParts; ++part) {
      reading.parts[part] = absl::Nanoseconds(times.parts[part].load(std::memory_order_acquire));
    }
    const absl::Duration since = absl::Nanoseconds(times.since.load(std::memory_order_acquire));
    const StepPart part = times.part.load(std::memory_order_acquire);
    const absl::Duration now = clock_->Now();
    if (version_.load(std::memory_order_acquire) != version) continue;
    reading.parts[static_cast<size_t>(part)] += std::max(absl::ZeroDuration(), now - since);
    break;
  }
  reading.steps = steps_.load(std::memory_order_relaxed);
  for (size_t use = 0; use < kUses; ++use) {
    reading.sent_bytes[use] = sent_[use].load(std::memory_order_relaxed);
    reading.received_bytes[use] = received_[use].load(std::memory_order_relaxed);
  }
  return reading;
}

}  // namespace bellwether
