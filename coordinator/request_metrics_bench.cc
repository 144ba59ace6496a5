// What a token and a request cost the engine's thread for being counted, beyond passing them on.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "coordinator/request_metrics.h"

namespace bellwether {
namespace {

class Nobody : public RequestObserver {
 public:
  void OnAccepted() override {}
  void OnTokens(TokenChunk) override {}
  void OnInterrupted(const std::string&) override {}
  void OnScores(std::vector<float>, std::vector<TokenLogprob>) override {}
  void OnDone(const absl::Status&, const Usage&, uint64_t) override {}
};

void BM_Token(benchmark::State& state) {
  Metrics metrics(MetricSource::kCoordinator);
  RequestMetrics requests(&metrics, "model");
  const auto observer = requests.Observe({.prompt = {1, 2, 3}}, std::make_shared<Nobody>());
  TokenChunk chunk{.tokens = {7}};
  for (auto _ : state) {
    ++chunk.index;
    observer->OnTokens(chunk);
  }
}
BENCHMARK(BM_Token);

void BM_Request(benchmark::State& state) {
  Metrics metrics(MetricSource::kCoordinator);
  RequestMetrics requests(&metrics, "model");
  const auto nobody = std::make_shared<Nobody>();
  for (auto _ : state) {
    const auto observer = requests.Observe({.prompt = {1, 2, 3}}, nobody);
    observer->OnTokens({.tokens = {7}});
    observer->OnDone(absl::OkStatus(), {.admitted = true, .generated_tokens = 1}, 0);
  }
}
BENCHMARK(BM_Request);

}  // namespace
}  // namespace bellwether
