#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/decoder/batch.h"
#include "worker/device/device.h"
#include "worker/executor_progress.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

// An embedding that is streamed: the host looks up the rows of a step's tokens when the step begins. Where
// the pieces are on a drive, only the panels that these are in are read. Every block's checksum is looked at
// the first time that it is touched, for which it is read whole. Used by the executor's thread alone, but for
// Abort.
class EmbeddingRows {
 public:
  struct Options {
    // At least one; all on a drive, or all in memory.
    std::vector<std::shared_ptr<const VocabularyPiece>> pieces;
    // Of the host, for as many rows as a step has; null: it works on the device's memory (HostView).
    float* host_rows = nullptr;
    int threads = 4;        // that read
    std::vector<int> cpus;  // of those threads; empty: wherever the system likes
    absl::Duration wait_limit = absl::InfiniteDuration();  // for all that a step wants of a piece
    bool verify_always = false;                            // every time, not the first alone
    DeviceOps* ops = nullptr;                              // outlives this
    ExecutorProgress* progress = nullptr;                  // likewise; told of waits and bytes
  };
  // ResourceExhausted if there is no memory for a piece.
  static absl::StatusOr<std::unique_ptr<EmbeddingRows>> Create(Options options);
  // Does not wait for a drive that does not answer, as ReadAhead.
  ~EmbeddingRows();
  EmbeddingRows(const EmbeddingRows&) = delete;
  EmbeddingRows& operator=(const EmbeddingRows&) = delete;

  // out row r = the embedding of the batch's token r, where a piece has it, and done when it returns. Other
  // rows keep what they have, or by way of host_rows get whatever was there; those have no gaps between them
  // then. Errors: ReadAhead::Take's.
  absl::Status Embed(const Batch& batch, MutableRows out);
  // From any thread: whoever waits, or would, gets `reason`.
  void Abort(const absl::Status& reason);

 private:
  // Bytes of a piece's image: a block that is to be checked, or pages of one that has been.
  struct Extent {
    int64_t begin = 0, end = 0;
    bool check = false;
  };
  class Reader;
  EmbeddingRows(Options options, std::shared_ptr<Reader> reader);
  // What is to be read of a piece for the batch, in ascending order.
  std::vector<Extent> Wanted(size_t piece, const Batch& batch) const;
  absl::Status Read(size_t piece, const std::vector<Extent>& extents);
  // Of those of the batch's tokens that the piece has.
  void LookUp(const VocabularyPiece& piece, const Batch& batch, MutableRows out) const;

  const Options options_;
  const std::shared_ptr<Reader> reader_;  // its threads have it too; null where nothing is to be read
  std::vector<std::thread> threads_;
  std::vector<std::vector<bool>> checked_;  // blocks of each piece
};

}  // namespace bellwether
