#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/weights/layer_file.h"
#include "worker/weights/stream_meter.h"

namespace bellwether {

// Reads layer files from first to last, over and over, into a ring of buffers: as far ahead of whoever takes
// them as buffers are free, so that the drive never waits. Every block's checksum is looked at until its file
// has been taken once.
class ReadAhead {
 public:
  struct Options {
    std::vector<std::shared_ptr<const LayerFile>> files;  // at least one
    int buffers = 2;                                      // at least 2, each as large as the largest image
    int threads = 4;                                      // that read: blocks on the way to the drive at once
    std::vector<int> cpus;  // of those threads; empty: wherever the system likes
    // Memory of a buffer; null: plain. May be given back from any thread.
    std::function<absl::StatusOr<std::shared_ptr<std::byte>>(int64_t bytes)> new_buffer;
    absl::Duration wait_limit = absl::InfiniteDuration();
    bool verify_always = false;                                            // every round, not the first alone
    std::shared_ptr<StreamMeter> meter = std::make_shared<StreamMeter>();  // told of reads and buffers
  };
  // ResourceExhausted if there is no memory for the buffers.
  static absl::StatusOr<std::unique_ptr<ReadAhead>> Create(Options options);
  // Does not wait for a drive that does not answer: when it does, its thread gives the buffers back.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // -- One thread

  // The image of `file`, until Release. Those that stand before it in the order are passed over: of them no
  // more is read, and nothing may be in use then. Waits for the drive: DeadlineExceeded beyond the limit,
  // naming the file. Errors of reading are LayerFile::ReadBlock's, and final: a file that cannot be read is
  // taken away, so that it is written anew.
  absl::StatusOr<std::byte*> Take(const LayerFile& file);
  // The buffer taken first may be filled anew.
  void Release();
  // Whether Take would return at once.
  bool Ready() const;

  // -- Any thread

  // Whoever waits, or would, gets `reason`.
  void Abort(const absl::Status& reason);
  // From the drive, since the beginning.
  int64_t bytes_read() const;

 private:
  class Ring;
  explicit ReadAhead(std::shared_ptr<Ring> ring) : ring_(std::move(ring)) {}

  const std::shared_ptr<Ring> ring_;  // its threads have it too
  std::vector<std::thread> threads_;
};

}  // namespace bellwether
