#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/weight_hash.h"
#include "worker/executor_progress.h"
#include "worker/thread_pool.h"
#include "worker/weights/layer_file.h"
#include "worker/weights/shard_cache.h"
#include "worker/weights/write_behind.h"

namespace bellwether {

// Images of what is packed and kept in a file together, on their way from the shard cache and to it while a
// shard is loaded. One thread.
class SectionImages {
 public:
  struct Options {
    const ShardCache* cache = nullptr;                 // outlives this
    std::vector<UnwrittenImage>* unwritten = nullptr;  // as LoadOptions has them
    std::function<bool()> cancelled;
    ThreadPool* pool = nullptr;  // that reads
    ExecutorProgress* progress = nullptr;
  };
  struct Section {
    std::string name;  // "layer 3"
    std::string key;
    absl::Span<std::byte> image;
  };

  explicit SectionImages(Options options) : options_(std::move(options)) {}
  // Waits for what is being written, unless the loading has been cancelled.
  ~SectionImages() { WaitForWriter(); }
  SectionImages(const SectionImages&) = delete;
  SectionImages& operator=(const SectionImages&) = delete;

  // Its file if the cache has it, whose bytes are in the image then if `read`. Null: it is to be packed, and
  // the image is full of zeros. Cancelled.
  absl::StatusOr<std::shared_ptr<const LayerFile>> Find(const Section& section, bool read);
  // Of one that is to be streamed from there.
  absl::StatusOr<std::shared_ptr<const LayerFile>> Write(const Section& section,
                                                         const std::vector<WeightHash>& hashes);
  // For the next start: it is only a pity if that fails, as it does where the drive would not have
  // `leave_bytes` for others. An image that `stays` as long as its owner is written later, by who gets
  // options.unwritten; another one while the next is packed, so that there are two of them for a while.
  void Keep(const Section& section, const std::vector<WeightHash>& hashes, std::shared_ptr<const void> owner,
            bool stays, int64_t leave_bytes);
  // Until nothing is being written: what it was written from may go.
  void WaitForWriter() {
    if (writer_.joinable()) writer_.join();
  }

 private:
  absl::Status Read(const LayerFile& file, absl::Span<std::byte> image);
  absl::StatusOr<std::shared_ptr<const LayerFile>> WriteBeside(int64_t leave_bytes, const Section& section,
                                                               const std::vector<WeightHash>& hashes);
  bool Cancelled() const { return options_.cancelled && options_.cancelled(); }
  // What a writer asks every few megabytes.
  bool GoOnWriting() const;

  const Options options_;
  std::thread writer_;
  bool told_ = false;  // that the cache cannot be written: nobody tries again
};

}  // namespace bellwether
