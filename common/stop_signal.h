#pragma once

namespace bellwether {

// SIGTERM and SIGINT, taken calmly. Call BlockStopSignals first thing in main, before any thread starts; it
// also ignores SIGPIPE, so that a peer that goes away is an error of a write and not the end of the process.
void BlockStopSignals();

// Waits for one of them and returns it.
int WaitForStopSignal();

}  // namespace bellwether
