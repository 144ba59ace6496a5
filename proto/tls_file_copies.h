#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls_files.h"
#include "common/unique_fd.h"

namespace bellwether {

// TLS's files as gRPC's watcher may have them: copies in memory, which change from one good set to another at
// once. The watcher takes files as they come; while one is no good, or the key is new and its certificate is
// not, gRPC refuses every new connection.
class TlsFileCopies {
 public:
  // Follows the files, on a thread of its own, for as long as the process lives: gRPC's watcher ends when it
  // likes, and until then it goes by numbers of descriptors, which may not become another file's. All who
  // give the same options share one. Errors: those of ReadTlsFiles, or the system has no memory file. Any
  // thread.
  static absl::StatusOr<const TlsFileCopies*> Of(const TlsOptions& options);

  // As above, but they are looked at when told.
  static absl::StatusOr<std::unique_ptr<TlsFileCopies>> Make(const TlsOptions& options);
  void Look();

  // Paths, in this process alone; empty: there is none. The key and its certificate are in one file, since
  // two would not change at once.
  const std::string& key_and_certificate() const { return own_.path; }
  const std::string& authority() const { return authority_.path; }

 private:
  struct Copy {
    UniqueFd fd;
    std::string path;
  };
  explicit TlsFileCopies(FollowedTlsFiles files) : files_(std::move(files)) {}
  absl::Status Write();
  absl::Status Put(const std::string& text, Copy* copy) const;

  FollowedTlsFiles files_;
  bool written_ = false;  // all of `files_`
  int64_t version_ = 0;
  Copy own_, authority_;
};

}  // namespace bellwether
