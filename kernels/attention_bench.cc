// Attention of one KV head over a context. Counters: GB/s of KV cache read (once for each call) and GFLOP/s;
// shares of the limits just measured as in matmul_bench.cc. Queries: 1 is decode without grouped heads, 4
// decode with 4 query heads a KV head, 64 a prefill chunk at the end of the context.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/aligned_buffer.h"
#include "kernels/kernels.h"
#include "kernels/peaks.h"

namespace bellwether::kernels {
namespace {

constexpr int kBlockPositions = 32;
constexpr double kPeakSeconds = 0.05;
const bool kTiny = std::getenv("BELLWETHER_TINY_BENCH") != nullptr;
const int64_t kCacheBytes = kTiny ? 0 : int64_t{96} << 20;  // heads take turns, so that no cache holds them

const KernelTable& BenchKernels() {
  const char* name = std::getenv("BELLWETHER_KERNEL_LEVEL");
  const KernelLevel best = AvailableKernelLevels().back();
  return **GetKernels(name == nullptr ? best : ParseKernelLevel(name).value_or(best));
}

// KV heads of one context length, filled with ordinary numbers.
struct Heads {
  std::vector<int32_t> table;
  AlignedBuffer bytes;
  std::vector<KvHead> heads;

  Heads(const KernelTable& kernels, DType type, int head_dim, int context) {
    const int blocks = (context + kBlockPositions - 1) / kBlockPositions;
    const int64_t block_bytes = 2 * int64_t{head_dim} * kBlockPositions * SizeOf(type);
    const int64_t count = kCacheBytes / (blocks * block_bytes) + 1;
    bytes = *AlignedBuffer::Allocate(count * blocks * block_bytes);
    for (int i = 0; i < blocks; ++i) table.push_back(blocks - 1 - i);
    std::vector<float> numbers(head_dim);
    for (int i = 0; i < head_dim; ++i) numbers[i] = static_cast<float>(i % 17 - 8) / 16;
    for (int64_t h = 0; h < count; ++h) {
      heads.push_back({bytes.data() + h * blocks * block_bytes, block_bytes, table.data(), type, head_dim});
      for (int p = 0; p < context; ++p) kernels.write_kv(heads[h], p, numbers.data(), numbers.data());
    }
  }
};

void Attention(benchmark::State& state, DType type, int head_dim, int context, int queries) {
  const KernelTable& kernels = BenchKernels();
  const Heads heads(kernels, type, head_dim, context);
  std::vector<float> q(queries * head_dim, 0.01f), out(q.size());
  std::vector<AttentionQuery> list(queries);
  for (int i = 0; i < queries; ++i) {
    // A chunk's queries stand at successive positions, grouped heads at the same one.
    const int back = queries > 8 ? queries - 1 - i : 0;
    list[i] = {&q[i * head_dim], &out[i * head_dim], std::max(0, context - 1 - back), 0};
  }
  double bandwidth = 1, peak = 1;
  const auto measure_limits = [&] {
    if (kTiny) return;
    bandwidth = std::max(bandwidth, MeasureReadBandwidth(1, kPeakSeconds));
    peak = std::max(peak, MeasureArithmeticPeak(kernels.level, Arithmetic::kF32, 1, kPeakSeconds));
  };
  measure_limits();
  size_t turn = 0;
  for (auto _ : state) {
    kernels.attention(heads.heads[turn++ % heads.heads.size()], list.data(), queries, 0.1f);
  }
  measure_limits();
  using benchmark::Counter;
  const double turns = static_cast<double>(state.iterations());
  const double bytes = turns * 2 * context * head_dim * static_cast<double>(SizeOf(type));
  const double operations = turns * 4.0 * context * head_dim * queries;
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  state.counters["of_bandwidth"] = Counter(bytes / bandwidth, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(operations / 1e9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(operations / peak, Counter::kIsRate);
}

bool RegisterAll() {
  const std::vector<int> contexts = kTiny ? std::vector<int>{70} : std::vector<int>{256, 2048};
  for (DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int head_dim : {64, 128}) {
      for (int context : contexts) {
        for (int queries : {1, 4, 64}) {
          const std::string name =
              "Attention/" + std::string(bellwether::Name(type)) + "/head_dim:" + std::to_string(head_dim) +
              "/context:" + std::to_string(context) + "/queries:" + std::to_string(queries);
          benchmark::RegisterBenchmark(name.c_str(), Attention, type, head_dim, context, queries)
              ->Unit(benchmark::kMicrosecond);
        }
      }
    }
  }
  return true;
}
[[maybe_unused]] const bool kRegistered = RegisterAll();

}  // namespace
}  // namespace bellwether::kernels
