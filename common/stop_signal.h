#pragma once

namespace bellwether {

// SIGTERM and SIGINT, taken calmly. Call BlockStopSignals before any thread starts.
void BlockStopSignals();

// Waits for one of them and returns it.
int WaitForStopSignal();

// A peer that goes away is an error of a write and not the end of the process. For servers: a tool that
// writes into a pipe ends with its reader.
void IgnoreBrokenPipes();

}  // namespace bellwether
