#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace bellwether {

// A directory for logs and the like that goes with this object, or, where that cannot be (SIGKILL, a crash),
// with its process: a shell waits for that. Should the shell be gone too, the next process that makes one in
// the same place removes it. Movable.
class ScratchDirectory {
 public:
  // `parent` must exist.
  static absl::StatusOr<ScratchDirectory> Make(const std::string& parent);

  ScratchDirectory() = default;
  ScratchDirectory(ScratchDirectory&& other) noexcept { *this = std::move(other); }
  ScratchDirectory& operator=(ScratchDirectory&& other) noexcept;
  ~ScratchDirectory();

  const std::string& path() const { return path_; }

 private:
  absl::Status StartJanitor();

  std::string path_;
  pid_t janitor_ = -1;    // the shell that removes path_ when this process has ended
  int janitor_end_ = -1;  // of a pipe to it, open as long as this process lives
  int lock_ = -1;         // of the lock file inside; the system lets go of it whenever the process ends
};

}  // namespace bellwether
