#pragma once

#include "absl/status/status.h"

namespace bellwether {

// From now on big blocks go back to the system as soon as they are freed; else the allocator keeps what it
// thinks will be needed again, tens of megabytes a thread. To be called by main, before any thread starts.
void ReturnBigBlocksAtOnce();

// From now on memory or a thread that the system does not give, where nobody expects it, ends the process
// with one line that says so and exit code 1, not by an exception. To be called by main.
void SayWhatWasShort();

// FailedPrecondition where the process may have so little address space (ulimit -v) that gRPC, which ends the
// process when it gets no thread, cannot start.
absl::Status CheckAddressSpace();

}  // namespace bellwether
