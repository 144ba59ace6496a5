#include "worker/weights/write_behind.h"

#include <iterator>
#include <utility>

#include "common/log.h"

namespace bellwether {

namespace {
constexpr absl::Duration kEndTold = absl::Seconds(2);
}  // namespace

WriteBehind::WriteBehind(const ShardCache* cache) : cache_(cache), thread_([this] { Run(); }) {}

WriteBehind::~WriteBehind() {
  bool ended = false;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_; };
    ended = mutex_.AwaitFor(idle, kEndTold);
  }
  if (!ended) LogWarning("shard cache: the end waits for a drive that is slow to write a layer");
  thread_.join();
}

bool WriteBehind::Stopping() const {
  MutexLock lock(&mutex_);
  return stopping_;
}

void WriteBehind::Add(std::vector<UnwrittenImage> images) {
  MutexLock lock(&mutex_);
  waiting_.insert(waiting_.end(), std::make_move_iterator(images.begin()),
                  std::make_move_iterator(images.end()));
}

void WriteBehind::Wait() {
  MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return waiting_.empty() && !writing_; };
  mutex_.Await(done);
}

int64_t WriteBehind::left() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(waiting_.size()) + (writing_ ? 1 : 0);
}

void WriteBehind::Run() {
  const auto wanted = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); };
  while (true) {
    UnwrittenImage image;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      mutex_.Await(wanted);
      if (stopping_) return;
      image = std::move(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
    }
    if (Write(image)) continue;
    MutexLock lock(&mutex_);
    waiting_.clear();
  }
}

bool WriteBehind::Write(const UnwrittenImage& image) const {
  const std::shared_ptr<const void> owner = image.owner.lock();
  if (owner == nullptr) return true;
  const auto written = cache_->Write(DescribeImage(image.key, image.image, image.hashes), image.image,
                                     [this] { return Stopping(); });
  if (!written.ok() && !absl::IsCancelled(written.status()))
    LogWarning("shard cache: ", written.status().message(), "; weights are not kept for the next start");
  return written.ok();
}

}  // namespace bellwether
