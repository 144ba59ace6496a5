#include "cli/bench_runs.h"

#include <algorithm>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/decode_rate.h"
#include "cli/stop.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/status.h"

namespace bellwether {

absl::StatusOr<BenchLayout> ParseBenchLayout(const std::string& text, int cores) {
  BenchLayout layout{.name = text};
  const std::vector<std::string> at_threads = absl::StrSplit(text, absl::MaxSplits('t', 1));
  const std::vector<std::string> sizes = absl::StrSplit(at_threads[0], 'x');
  const bool ok = sizes.size() == 2 && absl::SimpleAtoi(sizes[0], &layout.tensor) &&
                  absl::SimpleAtoi(sizes[1], &layout.pipeline) && layout.tensor > 0 && layout.pipeline > 0 &&
                  layout.tensor <= kLocalWorkersMax && layout.pipeline <= kLocalWorkersMax;
  layout.threads = ok ? std::max(1, cores / (layout.tensor * layout.pipeline)) : 0;
  const bool threads_ok = at_threads.size() < 2 || absl::SimpleAtoi(at_threads[1], &layout.threads);
  if (!ok || !threads_ok || layout.threads < 1 || layout.threads > kWorkerThreadsMax) {
    return absl::InvalidArgumentError(absl::StrCat("layout \"", text, "\": write TENSORxPIPELINE or 2x1t1"));
  }
  if (const int workers = layout.tensor * layout.pipeline; workers > kLocalWorkersMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layout \"", text, "\": ", workers, " workers on this machine, allowed are ", kLocalWorkersMax));
  }
  return layout;
}

PromptInput RandomPrompt(int tokens, int vocab, uint32_t seed) {
  PromptInput prompt;
  std::vector<TokenId> ids;
  for (int i = 0; i < tokens; ++i) {
    seed = seed * 1664525u + 1013904223u;
    ids.push_back(static_cast<TokenId>((seed >> 8) % static_cast<uint32_t>(vocab)));
  }
  prompt.token_ids = std::move(ids);
  return prompt;
}

absl::StatusOr<TimedAnswer> TimedGenerate(InferenceClient& client, const PromptInput& prompt,
                                          int max_tokens) {
  GenerationOptions options{.max_tokens = max_tokens, .temperature = 0.0, .ignore_eos = true};
  TimedAnswer answer;
  const CallOptions call{.cancellation = StopCancellation()};
  BW_RETURN_IF_ERROR(client.Generate(prompt, options, call, [&](const AnswerChunk& chunk) {
    answer.tokens.insert(answer.tokens.end(), chunk.tokens.size(), Clock::Real()->Now());
    if (chunk.usage.has_value()) answer.usage = *chunk.usage;
    return true;
  }));
  return answer;
}

absl::StatusOr<double> MeasureDecoding(const std::string& address, int vocab, int streams, int tokens) {
  std::vector<absl::StatusOr<TimedAnswer>> answers(streams, TimedAnswer{});
  std::vector<std::thread> threads;
  threads.reserve(streams);
  for (int i = 0; i < streams; ++i) {
    threads.emplace_back([&, i] {
      InferenceClient client(address);
      answers[i] = TimedGenerate(client, RandomPrompt(kDecodePromptTokens, vocab, i), tokens);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::vector<absl::Duration>> times;
  for (auto& answer : answers) {
    BW_RETURN_IF_ERROR(answer.status());
    times.push_back(std::move(answer->tokens));
  }
  const double rate = DecodeRate(times);
  if (rate == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("with ", tokens, " tokens each, ", streams, " streams never decoded at once"));
  }
  return rate;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double ProportionalBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/smaps_rollup"));
  for (std::string word; file >> word;) {
    double kilobytes = 0;
    if (word == "Pss:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace bellwether
