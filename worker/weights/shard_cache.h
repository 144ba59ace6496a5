#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/weights/layer_file.h"

namespace bellwether {

// A directory of layer files (layer_file.h), each named by a hash of its key. Files appear whole or not at
// all, so that workers may share a directory and be killed at any time; one that is damaged is taken away
// when it is found out. From any thread.
class ShardCache {
 public:
  struct Options {
    std::string directory;
    ReadAt read_at;  // of the files; null: pread
    // Whether so many bytes may be written; tests have drives that are full. Null: by the drive itself.
    std::function<absl::Status(int64_t bytes)> check_room;
  };
  // Makes no directory before it writes.
  explicit ShardCache(Options options) : options_(std::move(options)) {}
  // With its directory. Errors name it.
  static absl::StatusOr<std::unique_ptr<ShardCache>> Open(Options options);

  // $XDG_CACHE_HOME/bellwether/shards, or below $HOME/.cache; empty where neither is set.
  static std::string DefaultDirectory();

  const std::string& directory() const { return options_.directory; }

  // The directory, made for this user alone if it is not there, without what writers that were killed have
  // left.
  absl::Status MakeDirectory() const;

  // Null if it has none, or only a damaged one, which is gone now.
  std::shared_ptr<const LayerFile> Find(const std::string& key) const;
  // Writes one and opens it. ResourceExhausted: it would leave less than a tenth of the drive free, beside
  // `leave_bytes` for others. Cancelled, and nothing is left: `cancelled`, asked every few megabytes, was
  // true.
  absl::StatusOr<std::shared_ptr<const LayerFile>> Write(
      const LayerFileInfo& info, absl::Span<const std::byte> image,
      const std::function<bool()>& cancelled = [] { return false; }, int64_t leave_bytes = 0) const;

 private:
  absl::StatusOr<std::string> PathOf(const std::string& key) const;

  const Options options_;
  mutable std::once_flag cleared_;  // of what writers have left
};

// What a program was told: a directory, which is made; "off": null; "auto": the default one, which need not
// be there, or null where there is none.
inline constexpr char kShardCacheAuto[] = "auto";
inline constexpr char kShardCacheOff[] = "off";
absl::StatusOr<std::unique_ptr<ShardCache>> FindShardCache(const std::string& option);

// A file of a directory of layer files, as people see it.
struct CachedLayer {
  std::string path;
  std::string key;  // empty: it cannot be read
  int64_t bytes = 0;
  absl::Time used;  // last
};
// Least recently used first; none where there is no such directory.
absl::StatusOr<std::vector<CachedLayer>> ListShardCache(const std::string& directory);
// Takes away the least recently used until the rest takes at most `bytes_max`; what it took away.
absl::StatusOr<std::vector<CachedLayer>> PruneShardCache(const std::string& directory, int64_t bytes_max);

}  // namespace bellwether
