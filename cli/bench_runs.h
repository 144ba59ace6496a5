#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/inference_client.h"

namespace bellwether {

// What the benches do with a cluster of real processes.

struct BenchLayout {
  std::string name;
  int tensor = 1;
  int pipeline = 1;
  int threads = 1;  // of each worker
};
// TENSORxPIPELINE[tTHREADS of each worker], which else share `cores`.
absl::StatusOr<BenchLayout> ParseBenchLayout(const std::string& text, int cores);

// Of a bench's decoding requests.
inline constexpr int kDecodePromptTokens = 8;

PromptInput RandomPrompt(int tokens, int vocab, uint32_t seed);

struct TimedAnswer {
  AnswerUsage usage;
  std::vector<absl::Duration> tokens;  // when each came
};
// Greedy, whatever comes. ^C cancels.
absl::StatusOr<TimedAnswer> TimedGenerate(InferenceClient& client, const PromptInput& prompt, int max_tokens);

// Tokens per second of `streams` requests at once.
absl::StatusOr<double> MeasureDecoding(const std::string& address, int vocab, int streams, int tokens);

// The upper one of two; 0 of none.
double Median(std::vector<double> values);

// Private and shared memory of a process, shared pages divided by those who share them.
double ProportionalBytes(pid_t pid);

}  // namespace bellwether
