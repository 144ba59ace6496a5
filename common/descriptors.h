#pragma once

#include "absl/status/status.h"

namespace bellwether {

// File descriptors are numbers below the process's limit of open files. Connections, of which strangers can
// open as many as they like, get ranges of numbers of their own: however many come, the other ports and
// everything else that needs a file go on.

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
