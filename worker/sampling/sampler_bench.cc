#include <random>

#include "benchmark/benchmark.h"
#include "worker/sampling/sampler.h"

namespace bellwether {
namespace {

constexpr size_t kVocabulary = 250880;  // BLOOM's, the largest of the families served

std::vector<float> RandomLogits() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

void Run(benchmark::State& state, const SamplingOptions& options) {
  const std::vector<float> logits = RandomLogits();
  const std::vector<TokenId> tokens(2000, 17);
  SamplingScratch scratch;
  int32_t choice = 0;
  for (auto _ : state) benchmark::DoNotOptimize(Sample({logits, options, tokens, 1000, ++choice}, scratch));
}

void BM_Greedy(benchmark::State& state) {
  SamplingOptions options;
  options.temperature = 0.0;
  Run(state, options);
}
BENCHMARK(BM_Greedy);

void BM_GreedyWithLogprobs(benchmark::State& state) {
  SamplingOptions options;
  options.temperature = 0.0;
  options.logprobs = 5;
  Run(state, options);
}
BENCHMARK(BM_GreedyWithLogprobs);

void BM_WholeVocabulary(benchmark::State& state) { Run(state, SamplingOptions()); }
BENCHMARK(BM_WholeVocabulary);

void BM_TopP(benchmark::State& state) {
  SamplingOptions options;
  options.top_p = 0.9;
  Run(state, options);
}
BENCHMARK(BM_TopP);

// The parameters on BELLE's model card.
void BM_BelleCard(benchmark::State& state) {
  SamplingOptions options;
  options.temperature = 0.35;
  options.top_k = 30;
  options.top_p = 0.85;
  options.repetition_penalty = 1.2;
  Run(state, options);
}
BENCHMARK(BM_BelleCard);

}  // namespace
}  // namespace bellwether
