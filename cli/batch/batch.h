#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/session.h"
#include "common/generation_options.h"

namespace bellwether {

struct BatchOptions {
  SessionOptions session;
  GenerationOptions generation;
  std::string input, output;  // files of JSON lines: batch_task.h, batch_output.h
  std::string system;         // for conversations without a system message of their own
  int concurrency = 64;       // requests under way at once
  bool in_order = false;      // answers in the order of their lines, not as they come
};

inline constexpr int kBatchConcurrencyMax = 1024;

// Answers every line of a file and goes on where an earlier run has ended. A line's answer depends on its
// text, its number, the options and the model alone: neither on how many are under way nor on how often it
// was tried. Lines that can never be answered get a record with "error", are counted at the end, and make the
// command fail.
absl::Status RunBatch(const BatchOptions& options);

}  // namespace bellwether
