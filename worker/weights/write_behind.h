#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "model/weight_hash.h"
#include "worker/device/device.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {

// Matrices that are packed in memory and not yet in a file.
struct UnwrittenImage {
  std::string key;
  std::vector<WeightHash> hashes;
  absl::Span<const std::byte> image;  // stays as it is
  std::weak_ptr<const void> owner;    // as long as this is there
};

// Writes images to a cache while others go on serving: one after the other, on a thread of its own. One whose
// weights have gone meanwhile is passed over; what cannot be written is told once. Its end gives up the image
// under way, but waits for what the drive has been given of it, and says so if that takes long.
class WriteBehind {
 public:
  explicit WriteBehind(const ShardCache* cache);  // outlives this
  ~WriteBehind();
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  void Add(std::vector<UnwrittenImage> images);
  // Until all are written, or passed over.
  void Wait();
  // Images that are not yet.
  int64_t left() const;

 private:
  void Run();
  // Whether the next one is worth a try.
  bool Write(const UnwrittenImage& image) const;
  bool Stopping() const;

  const ShardCache* const cache_;
  mutable Mutex mutex_;
  std::deque<UnwrittenImage> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace bellwether
