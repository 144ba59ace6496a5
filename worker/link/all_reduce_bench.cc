// One all-reduce of a message between ranks that are threads with mappings of their own, over shared memory.
#include <benchmark/benchmark.h>

#include <thread>

#include "worker/link/host_group.h"
#include "worker/link/testing/shm_pair.h"

namespace bellwether {
namespace {

std::vector<std::unique_ptr<HostGroup>> MakeGroups(int ranks, int spin_pauses) {
  std::vector<HostGroup::Options> options(ranks);
  for (int r = 0; r < ranks; ++r) {
    options[r] = {.rank = r, .slices_total = ranks};
    for (int slice = 0; slice < ranks; ++slice) options[r].rank_slices.push_back({slice, slice + 1});
    options[r].links.resize(ranks);
  }
  for (int a = 0; a < ranks; ++a) {
    for (int b = a + 1; b < ranks; ++b) {
      std::tie(options[a].links[b], options[b].links[a]) = MakeShmPair(absl::Seconds(30), spin_pauses);
    }
  }
  std::vector<std::unique_ptr<HostGroup>> groups;
  for (HostGroup::Options& option : options) {
    groups.push_back(std::make_unique<HostGroup>(std::move(option)));
  }
  return groups;
}

void AllReduce(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const int count = static_cast<int>(state.range(1) / sizeof(float));
  auto groups = MakeGroups(ranks, static_cast<int>(state.range(2)));
  auto reduce = [&](int r, std::vector<float>& roots, std::vector<float>& out) {
    return groups[r]->AllReduce({.epoch = {1}, .step = {1}, .rows = 1, .cols = count}, roots,
                                absl::MakeSpan(out));
  };
  std::vector<std::thread> peers;
  for (int r = 1; r < ranks; ++r) {
    peers.emplace_back([&, r] {  // until rank 0 ends
      std::vector<float> roots(count, 1), out(count);
      while (reduce(r, roots, out).ok()) {
      }
      groups[r]->Abort(absl::AbortedError("the end"));
    });
  }
  std::vector<float> roots(count, 1), out(count);
  for (auto _ : state) {
    if (!reduce(0, roots, out).ok()) state.SkipWithError("all-reduce failed");
  }
  groups[0]->Abort(absl::AbortedError("the end"));
  for (std::thread& peer : peers) peer.join();
  state.SetBytesProcessed(state.iterations() * state.range(1));
}
BENCHMARK(AllReduce)
    ->ArgNames({"ranks", "bytes", "spin"})
    ->ArgsProduct({{2}, {8 << 10, 20 << 10, 64 << 10, 1 << 20, 8 << 20}, {0, 1000}})
    ->ArgsProduct({{4}, {8 << 10, 20 << 10, 1 << 20}, {0, 1000}})
    ->UseRealTime();

}  // namespace
}  // namespace bellwether
