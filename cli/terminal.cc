#include "cli/terminal.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "cli/stop.h"
#include "common/quote.h"

namespace bellwether {

StatusLine::StatusLine() : terminal_(isatty(STDERR_FILENO) == 1) {}

void StatusLine::Show(const std::string& text) {
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", text.c_str());
  std::fflush(stderr);
  shown_ = true;
}

void StatusLine::Clear() {
  if (shown_ && terminal_) std::fprintf(stderr, "\r\033[K");
  shown_ = false;
}

bool OutputsMeet() {
  struct stat output {
  }, errors{};
  return fstat(STDOUT_FILENO, &output) == 0 && fstat(STDERR_FILENO, &errors) == 0 &&
         output.st_dev == errors.st_dev && output.st_ino == errors.st_ino;
}

int ReportError(const absl::Status& status) {
  if (status.ok()) return 0;
  if (absl::IsCancelled(status) && StopRequested()) {
    std::fprintf(stderr, "bellwether: interrupted\n");
    return kInterruptedExitCode;
  }
  std::string text = Printable({status.message().data(), status.message().size()});
  if (text.empty()) text = absl::StatusCodeToString(status.code());
  std::fprintf(stderr, "bellwether: %s\n", text.c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace bellwether
