#include "cli/stop.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/stop_signal.h"

namespace bellwether {
namespace {

// Readable once stop is requested.
int StopEvent() {
  static const int descriptor = eventfd(0, EFD_CLOEXEC);
  return descriptor;
}

}  // namespace

Cancellation* StopCancellation() {
  static Cancellation* const cancellation = new Cancellation;  // the watching thread outlives main
  return cancellation;
}

bool StopRequested() { return StopCancellation()->cancelled(); }

void WatchStopSignals() {
  BlockStopSignals();
  std::thread([event = StopEvent()] {
    WaitForStopSignal();
    StopCancellation()->Cancel();
    eventfd_write(event, 1);
    WaitForStopSignal();
    _exit(kInterruptedExitCode);  // what we have started is killed by the system
  }).detach();
}

bool InputLines::Fail() {
  status_ = absl::UnavailableError(absl::StrCat("cannot read standard input: ", std::strerror(errno)));
  return false;
}

bool InputLines::Next(std::string* line) {
  while (true) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      *line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return !StopRequested();
    }
    pollfd descriptors[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                            {.fd = StopEvent(), .events = POLLIN, .revents = 0}};
    if (poll(descriptors, 2, /*timeout=*/-1) < 0 && errno != EINTR) return Fail();
    if (StopRequested()) return false;
    if (descriptors[0].revents == 0) continue;
    char bytes[4096];
    const ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (got > 0) {
      buffer_.append(bytes, static_cast<size_t>(got));
    } else if (got == 0 && !buffer_.empty()) {
      buffer_ += '\n';
    } else if (got == 0) {
      return false;
    } else if (errno != EINTR) {
      return Fail();
    }
  }
}

}  // namespace bellwether
