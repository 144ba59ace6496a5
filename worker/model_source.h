#pragma once

#include <future>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {

// Where a worker finds models: one that it was given, or any of a directory. Never a path from the wire: an
// assignment names a model id. Not safe for several threads, but for what the constructor starts.
class ModelSource {
 public:
  // One of `model` (a checkpoint) and `model_root` (a directory of checkpoints) is not empty. Opening `model`
  // starts at once, on a thread of its own.
  ModelSource(std::string model, std::string model_root, ReadOptions read = {});

  // Id of `model`; empty with model_root, as the right one shows when it is asked for. Waits for the opening.
  absl::StatusOr<std::string> ModelId();
  // The options that it is read with, likewise.
  absl::StatusOr<ReadingText> Reading();

  // Bytes of all its weights in memory, as they are stored; 0 with model_root. Waits for the opening.
  absl::StatusOr<int64_t> WholeBytes();

  // The checkpoint with this id; kept open. FailedPrecondition if there is another one, NotFound if there is
  // none.
  absl::StatusOr<const Checkpoint*> Find(const std::string& model_id);

 private:
  struct Opened {
    std::unique_ptr<Checkpoint> checkpoint;
    std::string id;
  };
  static absl::StatusOr<Opened> Open(const std::string& path, const ReadOptions& read);
  absl::StatusOr<const Checkpoint*> FindUnderRoot(const std::string& model_id);

  const std::string model_, model_root_;
  const ReadOptions read_;
  std::shared_future<std::shared_ptr<const absl::StatusOr<Opened>>> opening_;
  std::map<std::string, Opened> under_root_;  // by path
};

}  // namespace bellwether
