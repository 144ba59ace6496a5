#include "worker/weights/stream_meter.h"

namespace bellwether {

void StreamMeter::CountTime() const {
  const absl::Duration now = clock_->Now();
  const absl::Duration passed = now - since_;
  since_ = now;
  if (reads_under_way_ > 0) now_.reading += passed;
  if (now_.ring_bytes > 0)
    now_.filled += passed * (static_cast<double>(now_.filled_bytes) / static_cast<double>(now_.ring_bytes));
}

void StreamMeter::BeginRead() {
  MutexLock lock(&mutex_);
  CountTime();
  ++reads_under_way_;
}

void StreamMeter::EndRead() {
  MutexLock lock(&mutex_);
  CountTime();
  --reads_under_way_;
}

void StreamMeter::Fill(int64_t bytes) {
  MutexLock lock(&mutex_);
  CountTime();
  now_.filled_bytes += bytes;
}

void StreamMeter::LetGo(int64_t bytes) {
  MutexLock lock(&mutex_);
  CountTime();
  now_.filled_bytes -= bytes;
}

void StreamMeter::AddRing(int64_t bytes) {
  MutexLock lock(&mutex_);
  CountTime();
  now_.ring_bytes += bytes;
}

void StreamMeter::RemoveRing(int64_t bytes) {
  MutexLock lock(&mutex_);
  CountTime();
  now_.ring_bytes -= bytes;
}

StreamMeter::Reading StreamMeter::Read() const {
  MutexLock lock(&mutex_);
  CountTime();
  return now_;
}

}  // namespace bellwether
