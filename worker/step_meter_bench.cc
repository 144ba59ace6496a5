// What a step pays for being measured: two entries around it, and a wait for each message of a link. A layer
// with T ranks has two collectives of up to 4 (T - 1) messages, so a step of L layers makes at most 8 L (T -
// 1) waits and a few.

#include "benchmark/benchmark.h"
#include "worker/step_meter.h"

namespace bellwether {
namespace {

void BM_Enter(benchmark::State& state) {
  StepMeter meter;
  for (auto _ : state) benchmark::DoNotOptimize(meter.Enter(StepPart::kCompute));
}
BENCHMARK(BM_Enter);

void BM_Wait(benchmark::State& state) {
  StepMeter meter;
  for (auto _ : state) {
    meter.CountSent(StepMeter::Use::kCollective, 4096);
    const MeasuredWait wait(&meter, StepPart::kCollectiveWait, 1);
  }
}
BENCHMARK(BM_Wait);

void BM_Read(benchmark::State& state) {
  StepMeter meter;
  for (auto _ : state) benchmark::DoNotOptimize(meter.Read());
}
BENCHMARK(BM_Read);

}  // namespace
}  // namespace bellwether
