#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace bellwether {

// How busy a worker's drive is with the layers that it streams, and how full the buffers are that they are
// read into: counts since the worker began, over all of its layouts. From any thread.
class StreamMeter {
 public:
  explicit StreamMeter(const Clock* clock = Clock::Real()) : clock_(clock), since_(clock->Now()) {}
  StreamMeter(const StreamMeter&) = delete;

  // Reads may overlap.
  void BeginRead();
  void EndRead();
  // So many bytes of a ring hold a layer from now on, or no longer.
  void Fill(int64_t bytes);
  void LetGo(int64_t bytes);
  // A ring is there from now on, or no longer.
  void AddRing(int64_t bytes);
  void RemoveRing(int64_t bytes);

  struct Reading {
    absl::Duration reading;    // with at least one read under way; never goes back
    absl::Duration filled;     // the time that rings were there, each moment by the share that was filled
    int64_t ring_bytes = 0;    // now
    int64_t filled_bytes = 0;  // of those
  };
  Reading Read() const;

 private:
  // Adds the time since the last change, during which nothing has changed.
  void CountTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock* const clock_;
  mutable Mutex mutex_;
  mutable Reading now_ ABSL_GUARDED_BY(mutex_);
  int64_t reads_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable absl::Duration since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
