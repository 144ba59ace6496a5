#include "common/output.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace bellwether {

absl::Status WriteOutput(std::string_view text) {
  static int failed = 0;  // errno of the first failure
  while (failed == 0 && !text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) text.remove_prefix(static_cast<size_t>(written));
    if (written < 0 && errno != EINTR) failed = errno;
  }
  return failed == 0 ? absl::OkStatus() : absl::ErrnoToStatus(failed, "cannot write to standard output");
}

}  // namespace bellwether
