// What the emulator costs: a warp operation, a tensor core step, a block barrier.

#include <algorithm>

#include "benchmark/benchmark.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/simt.h"

namespace bellwether::gpu {
namespace {

constexpr int kRounds = 256;
constexpr int kThreads = 128;

struct Args {
  float* out;
};

void Shuffles(const Args& args) {
  float x = static_cast<float>(ThreadIndex());
  for (int i = 0; i < kRounds; ++i) x += ShuffleXor(x, 1 << i % 5);
  Store(args.out + ThreadIndex(), x);
}

void Steps(const Args& args) {
  float c[4] = {};
  const uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x40003f80u, 0x3f80bf80u};
  const uint32_t b[2] = {0x3f803f80u, 0x3f803f80u};
  for (int i = 0; i < kRounds; ++i) Mma(c, a, b);
  Store(args.out + ThreadIndex(), c[0]);
}

void Barriers(const Args&) {
  for (int i = 0; i < kRounds; ++i) SyncBlock();
}

void LoadsAndStores(const Args& args) {
  for (int i = 0; i < kRounds; ++i)
    Store(args.out + ThreadIndex(), Fma(Load(args.out + ThreadIndex()), 2.0f, 1.0f));
}

void Wide(const Args& args) {
  float d[64] = {};
  const uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x40003f80u, 0x3f80bf80u};
  auto* shared = reinterpret_cast<uint32_t*>(SharedMemory());
  for (int i = ThreadIndex(); i < 1024; i += kThreads) shared[i] = 0x3f803f80u;
  FenceAsyncShared();
  SyncBlock();
  for (int i = 0; i < kRounds; ++i) {
    WgmmaFence();
    Wgmma<128>(d, a, SharedTile{shared, 128, 256}, true);
    WgmmaCommit();
    WgmmaWait<0>();
  }
  Store(args.out + ThreadIndex(), d[0]);
}

// `per_round`: of what is counted, in a block and a round.
template <auto kKernel>
void Measure(benchmark::State& state, int per_round) {
  EmulatedMemory memory(1 << 20);
  auto* out = static_cast<float*>(*memory.Allocate(kThreads * sizeof(float)));
  std::fill_n(out, kThreads, 0.0f);
  const LaunchShape shape = {.threads = kThreads, .shared_bytes = 4096};
  for (auto _ : state) {
    const absl::Status status = EmulateLaunch<kKernel>(shape, {.memory = &memory}, Args{out});
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  state.SetItemsProcessed(state.iterations() * kRounds * per_round);
}

void WarpShuffles(benchmark::State& state) { Measure<Shuffles>(state, kThreads / 32); }
void WarpSteps(benchmark::State& state) { Measure<Steps>(state, kThreads / 32); }
void BlockBarriers(benchmark::State& state) { Measure<Barriers>(state, 1); }
void ThreadLoadsAndStores(benchmark::State& state) { Measure<LoadsAndStores>(state, kThreads); }
void WgmmaM64N128(benchmark::State& state) { Measure<Wide>(state, 1); }
BENCHMARK(WarpShuffles);
BENCHMARK(WarpSteps);
BENCHMARK(BlockBarriers);
BENCHMARK(ThreadLoadsAndStores);
BENCHMARK(WgmmaM64N128);

}  // namespace
}  // namespace bellwether::gpu
