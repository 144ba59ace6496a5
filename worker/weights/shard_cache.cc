#include "worker/weights/shard_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/config.h"
#include "common/format_bytes.h"
#include "common/log.h"
#include "common/new_file.h"
#include "common/status.h"
#include "common/system_random.h"
#include "common/unique_fd.h"
#include "model/checkpoint/sha256.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kSuffix = ".layer";
constexpr int64_t kDriveShareLeftFree = 10;  // a tenth
constexpr int64_t kWriteBytes = int64_t{8} << 20;

absl::Status CheckRoom(const ShardCache::Options& options, int64_t bytes) {
  if (options.check_room) return options.check_room(bytes);
  struct statvfs drive;
  if (statvfs(options.directory.c_str(), &drive) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", options.directory));
  const int64_t free = static_cast<int64_t>(drive.f_bavail) * static_cast<int64_t>(drive.f_frsize);
  const int64_t all = static_cast<int64_t>(drive.f_blocks) * static_cast<int64_t>(drive.f_frsize);
  if (free - bytes >= all / kDriveShareLeftFree) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(options.directory, ": ", FormatBytes(free), " are free of ", FormatBytes(all),
                   ", and a tenth is left free; bellwether cache prune makes room"));
}

bool OlderThan(const std::string& path, absl::Duration age) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && absl::Now() - absl::TimeFromTimespec(info.st_mtim) > age;
}

// What a writer that was killed has left; one that lives holds a lock (common/new_file.h).
void RemoveLeftovers(const std::string& directory) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string path = entry->path().string(), name = entry->path().filename().string();
    const bool partial = absl::EndsWith(name, ".partial");
    // Complete, but killed before it got its name.
    const bool unnamed =
        !partial && absl::StrContains(name, absl::StrCat(kSuffix, ".")) && OlderThan(path, absl::Hours(1));
    if (!partial && !unnamed) continue;
    const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (file.valid() && flock(file.get(), LOCK_EX | LOCK_NB) == 0) (void)unlink(path.c_str());
  }
}

// Marks the file as used now.
void Touch(const std::string& path) { (void)utimensat(AT_FDCWD, path.c_str(), nullptr, 0); }

}  // namespace

absl::StatusOr<std::unique_ptr<ShardCache>> ShardCache::Open(Options options) {
  auto cache = std::make_unique<ShardCache>(std::move(options));
  BW_RETURN_IF_ERROR(cache->MakeDirectory());
  return cache;
}

absl::Status ShardCache::MakeDirectory() const {
  std::string directory = options_.directory;
  while (directory.size() > 1 && directory.back() == '/')
    directory.pop_back();  // or it would be its own parent
  std::error_code error;
  fs::create_directories(fs::path(directory).parent_path(), error);
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    return absl::ErrnoToStatus(errno, absl::StrCat("shard cache: cannot make ", directory));
  if (access(directory.c_str(), R_OK | W_OK | X_OK) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("shard cache: cannot use ", directory));
  std::call_once(cleared_, [&] { RemoveLeftovers(directory); });
  return absl::OkStatus();
}

std::string ShardCache::DefaultDirectory() {
  const auto directory = [](const char* variable) -> std::string {
    const char* const value = EnvironmentVariable(variable);
    return value != nullptr && value[0] == '/' ? value : "";
  };
  if (const std::string cache = directory("XDG_CACHE_HOME"); !cache.empty())
    return cache + "/bellwether/shards";
  const std::string home = directory("HOME");
  return home.empty() ? "" : home + "/.cache/bellwether/shards";
}

absl::StatusOr<std::string> ShardCache::PathOf(const std::string& key) const {
  Sha256 hash;
  hash.AddLine(key);
  BW_ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return absl::StrCat(options_.directory, "/", digest.substr(0, 32), kSuffix);
}

std::shared_ptr<const LayerFile> ShardCache::Find(const std::string& key) const {
  const absl::StatusOr<std::string> path = PathOf(key);
  if (!path.ok()) return nullptr;
  absl::StatusOr<std::shared_ptr<const LayerFile>> file = LayerFile::Open(*path, key, options_.read_at);
  if (file.ok()) {
    Touch(*path);
    return *std::move(file);
  }
  if (absl::IsNotFound(file.status())) return nullptr;
  LogWarning("shard cache: ", file.status().message(), "; it is written anew");
  if (absl::IsDataLoss(file.status())) (void)unlink(path->c_str());
  return nullptr;
}

absl::StatusOr<std::shared_ptr<const LayerFile>> ShardCache::Write(const LayerFileInfo& info,
                                                                   absl::Span<const std::byte> image,
                                                                   const std::function<bool()>& cancelled,
                                                                   int64_t leave_bytes) const {
  BW_ASSIGN_OR_RETURN(const std::string path, PathOf(info.key));
  const std::string header = WriteLayerHeader(info);
  BW_RETURN_IF_ERROR(MakeDirectory());
  BW_RETURN_IF_ERROR(CheckRoom(options_, static_cast<int64_t>(header.size() + image.size()) + leave_bytes));
  // Under a name of its own: another worker may be writing the same, and whoever is last takes the name.
  uint64_t random = 0;
  FillRandom(&random, sizeof(random));
  const std::string own = absl::StrFormat("%s.%016x", path, random);
  BW_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(own));
  BW_RETURN_IF_ERROR(
      file.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(header.data()), header.size())));
  const auto given_up = absl::CancelledError(absl::StrCat(path, ": no longer to be written"));
  for (size_t begin = 0; begin < image.size(); begin += kWriteBytes) {
    if (cancelled()) return given_up;
    BW_RETURN_IF_ERROR(file.Append(image.subspan(begin, kWriteBytes)));
  }
  if (cancelled()) return given_up;
  BW_RETURN_IF_ERROR(file.Finish());
  if (rename(own.c_str(), path.c_str()) != 0) {
    const int error = errno;
    (void)unlink(own.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot name ", path));
  }
  return LayerFile::Open(path, info.key, options_.read_at);
}

absl::StatusOr<std::unique_ptr<ShardCache>> FindShardCache(const std::string& option) {
  if (option == kShardCacheOff) return nullptr;
  if (option != kShardCacheAuto) return ShardCache::Open({.directory = option});
  std::string directory = ShardCache::DefaultDirectory();
  if (directory.empty()) return nullptr;
  return std::make_unique<ShardCache>(ShardCache::Options{.directory = std::move(directory)});
}

absl::StatusOr<std::vector<CachedLayer>> ListShardCache(const std::string& directory) {
  std::vector<CachedLayer> layers;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string path = entry->path().string();
    struct stat info;
    if (!absl::EndsWith(path, kSuffix) || stat(path.c_str(), &info) != 0) continue;
    CachedLayer& layer = layers.emplace_back();
    layer = {.path = path, .bytes = info.st_size, .used = absl::TimeFromTimespec(info.st_mtim)};
    layer.key = ReadLayerKey(path).value_or("");
  }
  if (error == std::errc::no_such_file_or_directory) return layers;  // nobody has written one yet
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot read ", directory));
  std::sort(layers.begin(), layers.end(),
            [](const CachedLayer& a, const CachedLayer& b) { return a.used < b.used; });
  return layers;
}

absl::StatusOr<std::vector<CachedLayer>> PruneShardCache(const std::string& directory, int64_t bytes_max) {
  BW_ASSIGN_OR_RETURN(const std::vector<CachedLayer> layers, ListShardCache(directory));
  int64_t bytes = 0;
  for (const CachedLayer& layer : layers) bytes += layer.bytes;
  std::vector<CachedLayer> pruned;
  for (const CachedLayer& layer : layers) {
    if (bytes <= bytes_max) break;
    if (unlink(layer.path.c_str()) != 0 && errno != ENOENT)
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot remove ", layer.path));
    bytes -= layer.bytes;
    pruned.push_back(layer);
  }
  return pruned;
}

}  // namespace bellwether
