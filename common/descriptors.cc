#include "common/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace bellwether {
namespace {

// Hard limits of a billion are seen in containers; the kernel keeps a table as long as the highest number.
constexpr rlim_t kDescriptorsWanted = 1 << 16;
// With fewer a port takes fewer connections than a busy service has.
constexpr rlim_t kDescriptorsPlenty = 4096;

rlimit CurrentLimit() {
  rlimit limit{};
  (void)getrlimit(RLIMIT_NOFILE, &limit);  // fails for a bad address alone
  return limit;
}

}  // namespace

void FillStandardDescriptors(char** argv) {
  bool filled = false;
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // What a program is given has outlived an exec; what its libraries open would not.
    if (fcntl(descriptor, F_GETFD) == 0) continue;
    const int null = open("/dev/null", O_RDONLY);
    if (null < 0) return;
    if (null != descriptor) {
      dup2(null, descriptor);
      close(null);
    }
    filled = true;
  }
  if (!filled) return;
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  execv(program.c_str(), argv);  // where it fails we go on with what there is
}

absl::Status RaiseDescriptorLimit() {
  rlimit limit = CurrentLimit();
  const rlim_t wanted = std::min(kDescriptorsWanted, limit.rlim_max);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      LogWarning("the limit of open files cannot be raised to ", wanted, ": ", std::strerror(errno));
    }
    limit = CurrentLimit();
  }
  if (limit.rlim_cur < kDescriptorsMin) {
    return absl::FailedPreconditionError(absl::StrCat("only ", limit.rlim_cur,
                                                      " files may be open, at least ", kDescriptorsMin,
                                                      " are needed: raise the limit (ulimit -n)"));
  }
  if (limit.rlim_cur < kDescriptorsPlenty) {
    LogWarning("only ", limit.rlim_cur,
               " files may be open (ulimit -n), so few connections are taken at once");
  }
  return absl::OkStatus();
}

DescriptorRange DescriptorsBetween(double from, double to) {
  const auto limit = static_cast<double>(std::min(CurrentLimit().rlim_cur, kDescriptorsWanted));
  return {.first = static_cast<int>(from * limit), .end = static_cast<int>(to * limit)};
}

}  // namespace bellwether
