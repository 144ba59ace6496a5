#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/aligned_buffer.h"
#include "common/mutex.h"
#include "worker/weights/layer_file.h"

namespace bellwether {

// Reads layer files from first to last, over and over, into a ring of buffers: as far ahead of whoever takes
// them as buffers are free, so that the drive never waits. The first time round every block's checksum is
// looked at.
class ReadAhead {
 public:
  struct Options {
    std::vector<std::shared_ptr<const LayerFile>> files;  // at least one
    int buffers = 2;                                      // at least 2, each as large as the largest image
    int threads = 4;                                      // that read: blocks on the way to the drive at once
    bool check_always = false;                            // checksums
    absl::Duration wait_limit = absl::InfiniteDuration();
  };
  // ResourceExhausted if there is no memory for the buffers.
  static absl::StatusOr<std::unique_ptr<ReadAhead>> Create(Options options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // -- One thread

  // The image of the next file, until Release. Waits for the drive: DeadlineExceeded beyond the limit, naming
  // the file. Errors of reading are LayerFile::ReadBlock's, and final: a file that cannot be read is taken
  // away, so that it is written anew.
  absl::StatusOr<std::byte*> Take();
  // The buffer taken first may be filled anew.
  void Release();

  // -- Any thread

  // Whoever waits, or would, gets `reason`.
  void Abort(const absl::Status& reason);
  // Since the beginning.
  int64_t bytes_read() const;

 private:
  explicit ReadAhead(Options options);
  // Images are numbered as they are read, from 0 over all rounds.
  const LayerFile& FileOf(int64_t image) const { return *options_.files[image % options_.files.size()]; }
  size_t BufferOf(int64_t image) const { return static_cast<size_t>(image) % buffers_.size(); }
  void Run();

  const Options options_;
  std::vector<AlignedBuffer> buffers_;

  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;     // images
  int64_t released_ ABSL_GUARDED_BY(mutex_) = 0;  // likewise
  // What is read next.
  int64_t next_image_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t next_block_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> blocks_left_ ABSL_GUARDED_BY(mutex_);  // of each buffer's image
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<std::thread> threads_;
};

}  // namespace bellwether
