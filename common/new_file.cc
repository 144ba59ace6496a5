#include "common/new_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/write_all.h"

namespace bellwether {

absl::StatusOr<NewFile> NewFile::Create(const std::string& path) {
  if (access(path.c_str(), F_OK) == 0)
    return absl::AlreadyExistsError(absl::StrCat(path, " is there already and is not overwritten"));
  const std::string partial = path + ".partial";
  UniqueFd fd(open(partial.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", partial));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
    return absl::UnavailableError(absl::StrCat(partial, " is being written by another program"));
  if (ftruncate(fd.get(), 0) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", partial));
  return NewFile(path, std::move(fd));
}

NewFile::~NewFile() {
  if (fd_.valid()) unlink(partial().c_str());
}

absl::Status NewFile::Append(absl::Span<const std::byte> bytes) {
  const int failed = WriteAll(fd_.get(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  return failed == 0 ? absl::OkStatus()
                     : absl::ErrnoToStatus(failed, absl::StrCat("cannot write ", partial()));
}

absl::Status NewFile::Finish() {
  if (fsync(fd_.get()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", partial()));
  int renamed = renameat2(AT_FDCWD, partial().c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
  if (renamed != 0 && errno == EINVAL && access(path_.c_str(), F_OK) != 0)  // unknown to this file system
    renamed = rename(partial().c_str(), path_.c_str());
  if (renamed != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot name ", path_));
  fd_ = UniqueFd();
  return absl::OkStatus();
}

}  // namespace bellwether
