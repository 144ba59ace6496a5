#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/inference_client.h"

namespace bellwether {

constexpr int kInterruptedExitCode = 130;  // as shells have it

// The first ^C or SIGTERM ends a command in order instead of killing it; the second ends the process at once.
// Called by the command's first lines, while there is no other thread.
void WatchStopSignals();
// Tripped by the first of them, at once and whatever the command is doing: goes into CallOptions.
Cancellation* StopCancellation();
bool StopRequested();

// Lines of standard input.
class InputLines {
 public:
  // Without the line's end. False at the end of the input, once StopRequested(), or where it cannot be read.
  bool Next(std::string* line);
  // Why it could not be read, after Next has returned false.
  const absl::Status& status() const { return status_; }

 private:
  bool Fail();

  absl::Status status_;
  std::string buffer_;  // read, not yet returned
};

}  // namespace bellwether
