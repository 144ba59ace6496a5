#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/unique_fd.h"

namespace bellwether {

// A file that appears under its name once it is complete, and never in place of another. Until then it is
// PATH.partial, which goes with this object; what a crash left of one is begun anew, and two programs at one
// file notice each other.
class NewFile {
 public:
  // AlreadyExists: `path` is there. Errors name the path.
  static absl::StatusOr<NewFile> Create(const std::string& path);
  NewFile(NewFile&&) = default;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  absl::Status Append(absl::Span<const std::byte> bytes);
  // On disk and under its name.
  absl::Status Finish();

 private:
  NewFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string partial() const { return path_ + ".partial"; }

  std::string path_;
  UniqueFd fd_;  // not valid once finished
};

}  // namespace bellwether
