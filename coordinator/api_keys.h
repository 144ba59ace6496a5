#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace bellwether {

// Who may ask: the keys in a file, of which it holds only hashes. One JSON record a line:
//   {"name": "team-a", "sha256": "64 hexadecimal digits of the key's SHA-256"}
// Other members are passed over, lines that are empty too. The file is read again when it has changed, which
// is looked for once a second; while it is broken the keys that were there stay. Any thread.
class ApiKeys {
 public:
  // InvalidArgument: a line that is no record, with its number; no record at all. Others are those of reading
  // a file.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Load(std::string path, const Clock* clock = Clock::Real());

  // The name of the key in `authorization`, "Bearer KEY". Takes as long whichever key it is. Unauthenticated:
  // there is none, or nobody has it.
  absl::StatusOr<std::string> NameOf(std::string_view authorization);

 private:
  struct Key {
    std::string name;
    std::string sha256;
  };
  ApiKeys(std::string path, const Clock* clock) : path_(std::move(path)), clock_(clock) {}
  static absl::StatusOr<std::vector<Key>> Read(const std::string& path);
  static absl::StatusOr<Key> ReadLine(std::string_view line);
  // What tells whether the file has changed; empty where there is none.
  static std::string StampOf(const std::string& path);
  void ReloadIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Clock* const clock_;
  Mutex mutex_;
  std::vector<Key> keys_ ABSL_GUARDED_BY(mutex_);
  std::string stamp_ ABSL_GUARDED_BY(mutex_);
  absl::Duration looked_at_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
