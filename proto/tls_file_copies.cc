#include "proto/tls_file_copies.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/status.h"
#include "common/write_all.h"

namespace bellwether {
namespace {

absl::StatusOr<UniqueFd> MemoryFile(std::string_view text) {
  UniqueFd fd(memfd_create("bellwether-tls", MFD_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "no memory file for TLS");
  const int failed = WriteAll(fd.get(), text);
  if (failed != 0) return absl::ErrnoToStatus(failed, "a memory file for TLS takes nothing");
  return fd;
}

// The process's copies, which are there until its end.
struct AllCopies {
  using Files = std::tuple<std::string, std::string, std::string>;
  Mutex mutex;
  std::map<Files, std::unique_ptr<TlsFileCopies>> copies ABSL_GUARDED_BY(mutex);
};

}  // namespace

absl::StatusOr<const TlsFileCopies*> TlsFileCopies::Of(const TlsOptions& options) {
  static auto* all = new AllCopies;
  MutexLock lock(&all->mutex);
  std::unique_ptr<TlsFileCopies>& copies = all->copies[{options.certificate, options.key, options.authority}];
  if (copies == nullptr) {
    BW_ASSIGN_OR_RETURN(copies, Make(options));
    LookForRenewals([copies = copies.get()] {
      copies->Look();
      return true;
    });
  }
  return copies.get();
}

absl::StatusOr<std::unique_ptr<TlsFileCopies>> TlsFileCopies::Make(const TlsOptions& options) {
  BW_ASSIGN_OR_RETURN(FollowedTlsFiles files, FollowedTlsFiles::Read(options));
  std::unique_ptr<TlsFileCopies> copies(new TlsFileCopies(std::move(files)));
  BW_RETURN_IF_ERROR(copies->Write());
  return copies;
}

void TlsFileCopies::Look() {
  if (files_.Look()) written_ = false;
  if (written_) return;
  if (const absl::Status status = Write(); !status.ok()) {
    LogWarning("the last TLS files are still used: ", status.message());
  }
}

absl::Status TlsFileCopies::Write() {
  ++version_;
  const TlsFiles& pem = files_.files();
  BW_RETURN_IF_ERROR(Put(pem.authority, &authority_));
  BW_RETURN_IF_ERROR(Put(absl::StrCat(pem.key, pem.certificate), &own_));
  written_ = true;
  return absl::OkStatus();
}

absl::Status TlsFileCopies::Put(const std::string& text, Copy* copy) const {
  if (text.empty()) return absl::OkStatus();  // by the options, so it never was another
  BW_ASSIGN_OR_RETURN(UniqueFd next, MemoryFile(text));
  // The watcher takes what it has read for one file if the seconds of its last change were the same before
  // and after.
  const timespec times[2] = {{.tv_sec = version_, .tv_nsec = 0}, {.tv_sec = version_, .tv_nsec = 0}};
  if (futimens(next.get(), times) != 0)
    return absl::ErrnoToStatus(errno, "a memory file for TLS has no time");
  if (!copy->fd.valid()) {
    copy->path = absl::StrCat("/proc/self/fd/", next.get());
    copy->fd = std::move(next);
  } else if (dup3(next.get(), copy->fd.get(), O_CLOEXEC) < 0) {  // the path now leads to the new one
    return absl::ErrnoToStatus(errno, "a memory file for TLS cannot be replaced");
  }
  return absl::OkStatus();
}

}  // namespace bellwether
