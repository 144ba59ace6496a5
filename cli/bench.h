#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bellwether {

struct BenchOptions {
  std::string shape = "llama-1.1b";
  std::string weights = "bf16";
  // TENSORxPIPELINE[tTHREADS of each worker]. One process with all cores, then two workers that share the
  // cores, by tensor and by pipeline.
  std::vector<std::string> layouts = {"1x1", "2x1", "1x2"};
  int prompt_tokens = 512;
  int decode_tokens = 32;
  int repeats = 3;
  // Given one of these, weights that do not fit are streamed, and the rows are bench_offload.h's.
  int64_t memory_bytes = 0;          // of this machine, to plan with; 0: what is available
  std::string offload;               // as ParseOffload has it; empty: "auto"
  std::string shard_cache = "auto";  // a directory on the drive to stream from, or the default one
  bool json = false;
};
// Measures this machine's read bandwidth and arithmetic peaks, then prefill and decode of real processes with
// random weights, each as a share of the limit that was measured beside it.
absl::Status RunBench(const BenchOptions& options);

}  // namespace bellwether
