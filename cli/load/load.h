#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cli/load/load_result.h"
#include "cli/session.h"

namespace bellwether {

inline constexpr int kLoadConcurrencyMax = 4096;

struct LoadOptions {
  SessionOptions session;    // over gRPC, unless there is a `url`
  std::string url;           // of a server that speaks OpenAI's HTTP
  std::string served_model;  // there; empty: the first that it lists
  std::string prompts;       // file of JSON lines (batch_task.h), taken in turn; empty: random ones
  std::string prompt_tokens = "128", output_tokens = "128";  // length_distribution.h
  double temperature = 0;
  bool stop_at_eos = false;
  int concurrency = 8;
  double rate = 0;              // requests a second; 0: `concurrency` at once
  int64_t requests = 0;         // 0: as `duration` lets, else 10 for each that is under way at once
  double duration_seconds = 0;  // 0: until all are through
  int warm_up = 2;              // requests before, which do not count
  bool sweep = false;           // 1, 2, 4 ... at once up to `concurrency`
  LoadObjectives objectives;
  uint64_t seed = 0;  // of lengths, prompts and arrivals
  bool json = false;
};

// Loads a server as its users would and tells what they would feel: times to the first token, between tokens
// and to the end, tokens a second, and errors by kind. An error if no request was answered.
absl::Status RunLoad(const LoadOptions& options);

}  // namespace bellwether
