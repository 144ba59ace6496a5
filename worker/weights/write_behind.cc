#include "worker/weights/write_behind.h"

#include <iterator>
#include <utility>

#include "common/log.h"

namespace bellwether {

WriteBehind::WriteBehind(const ShardCache* cache) : cache_(cache), thread_([this] { Run(); }) {}

WriteBehind::~WriteBehind() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
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
  const auto written = cache_->Write(DescribeImage(image.key, image.image, image.hashes), image.image);
  if (!written.ok())
    LogWarning("shard cache: ", written.status().message(), "; weights are not kept for the next start");
  return written.ok();
}

}  // namespace bellwether
