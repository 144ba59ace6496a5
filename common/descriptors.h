#pragma once

#include "absl/status/status.h"

namespace bellwether {

// File descriptors are numbers below the process's limit of open files. Connections, of which strangers can
// open as many as they like, get ranges of numbers of their own: however many come, the other ports and
// everything else that needs a file go on.

// For the first line of main, with its argv. Where standard input, output or error is closed (program <&-
// 2>&-) the next file gets its number and is taken for it: a chat waits for ever at an event of its own, a
// log goes to a connection. So the null device is put there, to be read: input ends at once, and writing is
// an error. Then the program begins anew, as libraries open files before main does.
void FillStandardDescriptors(char** argv);

// Fewer than that and no program of ours can do its work.
inline constexpr int kDescriptorsMin = 64;

// Raises the soft limit of open files to the hard one (but not beyond what anyone needs), and says so where
// it stays low. FailedPrecondition where the limit is below kDescriptorsMin. To be called once, by main.
absl::Status RaiseDescriptorLimit();

struct DescriptorRange {
  int first = 0, end = 0;
  int size() const { return end - first; }
};
// The part of the numbers below the limit in force between two of its fractions, such as 0.25 and 0.75.
DescriptorRange DescriptorsBetween(double from, double to);

}  // namespace bellwether
