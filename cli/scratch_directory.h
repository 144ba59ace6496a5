#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// A directory for logs and the like that goes with this object. One whose process could not remove it
// (SIGKILL, a crash) is removed by the next process that makes one in the same place. Movable.
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
  std::string path_;
  int lock_ = -1;  // of the lock file inside; the system lets go of it whenever the process ends
};

}  // namespace bellwether
