#include "cli/scratch_directory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr char kPrefix[] = "bellwether.";
// The lock is taken under the first name and the file then renamed, so that whoever sees the second name and
// no lock knows that the owner is gone.
constexpr char kNewLock[] = "/lock.new";
constexpr char kLock[] = "/lock";

// The place may be shared, and another's lock may be anything: a pipe must not be waited for. -1: not ours.
int OpenOwnLock(const std::string& path) {
  const int lock = open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat found = {};
  if (lock >= 0 && fstat(lock, &found) == 0 && S_ISREG(found.st_mode) && found.st_uid == geteuid())
    return lock;
  if (lock >= 0) close(lock);
  return -1;
}

void RemoveThoseWithoutOwner(const std::string& parent) {
  std::error_code error, ignored;
  std::filesystem::directory_iterator entry(parent, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::filesystem::path& path = entry->path();
    if (entry->is_symlink(ignored) || !path.filename().string().starts_with(kPrefix)) continue;
    const int lock = OpenOwnLock(path.string() + kLock);
    if (lock < 0) continue;
    if (flock(lock, LOCK_EX | LOCK_NB) == 0) std::filesystem::remove_all(path, ignored);
    close(lock);
  }
}

}  // namespace

absl::StatusOr<ScratchDirectory> ScratchDirectory::Make(const std::string& parent) {
  RemoveThoseWithoutOwner(parent);
  ScratchDirectory made;
  std::string path = absl::StrCat(parent, "/", kPrefix, "XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return absl::InternalError(
        absl::StrCat("cannot make a directory in ", parent, ": ", std::strerror(errno)));
  }
  made.path_ = path;
  made.lock_ = open((path + kNewLock).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (made.lock_ < 0 || flock(made.lock_, LOCK_EX) != 0 ||
      rename((path + kNewLock).c_str(), (path + kLock).c_str()) != 0) {
    return absl::InternalError(absl::StrCat("cannot lock a file in ", path, ": ", std::strerror(errno)));
  }
  BW_RETURN_IF_ERROR(made.StartJanitor());
  return made;
}

// A process of its own session, so that what ends this one does not end it as well.
absl::Status ScratchDirectory::StartJanitor() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ResourceExhaustedError("no file descriptors left for a pipe");
  janitor_end_ = ends[1];
  const char* const arguments[] = {"/bin/sh", "-c", "read -r nothing; rm -rf -- \"$0\"", path_.c_str(),
                                   nullptr};
  const char* const environment[] = {"PATH=/usr/bin:/bin", nullptr};
  janitor_ = fork();
  if (janitor_ == 0) {  // only calls that are safe after a fork
    setsid();
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(ends[0], STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    dup2(nothing, STDERR_FILENO);
    execve(arguments[0], const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
    _exit(127);
  }
  close(ends[0]);
  if (janitor_ < 0) return absl::ResourceExhaustedError(absl::StrCat("fork: ", std::strerror(errno)));
  return absl::OkStatus();
}

ScratchDirectory& ScratchDirectory::operator=(ScratchDirectory&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(janitor_, other.janitor_);
  std::swap(janitor_end_, other.janitor_end_);
  std::swap(lock_, other.lock_);
  return *this;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  if (janitor_end_ >= 0) close(janitor_end_);  // it finds nothing to do, and ends
  if (janitor_ > 0) waitpid(janitor_, nullptr, 0);
  if (lock_ >= 0) close(lock_);
}

}  // namespace bellwether
