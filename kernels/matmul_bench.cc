// Matrix products against the limits of this machine. Counters:
//   GB/s        weights read          of_bandwidth   the same, as a share of the read bandwidth just measured
//   GFLOP/s     2 x rows x cols x M   of_peak        the same, as a share of the arithmetic peak just
//   measured
// What is measured moves with the machine's mood: compare shares, not seconds. BELLWETHER_KERNEL_LEVEL=avx2
// (or another name) takes another level than this machine's best.

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/check.h"
#include "kernels/kernels.h"
#include "kernels/peaks.h"

namespace bellwether::kernels {
namespace {

const bool kTiny = std::getenv("BELLWETHER_TINY_BENCH") != nullptr;
const int64_t kBytesOfCopies =
    kTiny ? 0 : int64_t{192} << 20;  // weights take turns, so that no cache holds them
constexpr double kPeakSeconds = 0.05;

struct Shape {
  int64_t rows, cols;
  int slices;  // 1: column-parallel
};

KernelLevel BenchLevel() {
  const char* name = std::getenv("BELLWETHER_KERNEL_LEVEL");
  const KernelLevel best = AvailableKernelLevels().back();
  return name == nullptr ? best : ParseKernelLevel(name).value_or(best);
}

PackedMatrix MakeWeights(const Shape& shape, WeightFormat format) {
  MatrixSpec spec = {.rows = shape.rows, .cols = shape.cols, .format = format, .half_scales = true};
  spec.slices_total = shape.slices;
  spec.slices = {0, shape.slices};
  for (int i = 0; shape.slices > 1 && i <= shape.slices; ++i) {
    spec.slice_bounds.push_back(i == shape.slices ? shape.cols
                                                  : 32 * (i * ((shape.cols + 31) / 32) / shape.slices));
  }
  absl::StatusOr<PackedMatrix> matrix = PackedMatrix::Create(std::move(spec));
  BW_CHECK(matrix.ok());
  // Small ordinary numbers in every format; setting rows one by one would take much longer.
  if (matrix->bytes() > 0) std::memset(const_cast<std::byte*>(matrix->panel_data(0)), 0x2c, matrix->bytes());
  return *std::move(matrix);
}

// Weights and prepared activations, made once for the benchmarks that follow each other with the same ones.
struct Problem {
  std::vector<PackedMatrix> copies;
  AlignedBuffer prepared;
  std::vector<float> y;

  Problem(const KernelTable& kernels, const Shape& shape, WeightFormat format, int64_t rows) {
    do {
      copies.push_back(MakeWeights(shape, format));
    } while (static_cast<int64_t>(copies.size()) * copies[0].bytes() < kBytesOfCopies);
    std::vector<float> x(rows * shape.cols);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 255) / 127 - 1;
    prepared = *AlignedBuffer::Allocate(rows * copies[0].prepared_row_bytes());
    kernels.prepare_rows(copies[0], {x.data(), rows, shape.cols}, 0, rows, prepared.data());
    y.resize(rows * shape.rows);
  }
};

std::unique_ptr<Problem> problem;  // of the benchmark that runs; its threads share it

void Matmul(benchmark::State& state, Shape shape, WeightFormat format, int64_t rows) {
  const KernelTable& kernels = **GetKernels(BenchLevel());
  const int threads = state.threads();
  double bandwidth = 0, peak = 0;
  const auto measure_limits = [&] {
    if (state.thread_index() != 0 || kTiny) return;
    bandwidth = std::max(bandwidth, MeasureReadBandwidth(threads, kPeakSeconds));
    peak = std::max(peak, MeasureArithmeticPeak(kernels.level, ArithmeticOf(format), threads, kPeakSeconds));
  };
  if (state.thread_index() == 0) {
    problem = std::make_unique<Problem>(kernels, shape, format, rows);
    measure_limits();
  }
  size_t turn = 0;
  for (auto _ : state) {
    const PackedMatrix& weights = problem->copies[turn++ % problem->copies.size()];
    kernels.matmul({.weights = &weights,
                    .prepared = problem->prepared.data(),
                    .rows = rows,
                    .panel_begin = weights.panels() * state.thread_index() / threads,
                    .panel_end = weights.panels() * (state.thread_index() + 1) / threads,
                    .y = problem->y.data(),
                    .stride = shape.rows});
  }
  if (state.thread_index() != 0) return;
  measure_limits();
  using benchmark::Counter;
  // The library divides by the mean of the threads' times.
  const auto turns = static_cast<double>(state.iterations());
  const double bytes = turns * static_cast<double>(problem->copies[0].bytes());
  const double operations = turns * 2 * static_cast<double>(shape.rows * shape.cols * rows);
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  state.counters["of_bandwidth"] = Counter(bytes / bandwidth, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(operations / 1e9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(operations / peak, Counter::kIsRate);
}

bool RegisterAll() {
  const std::vector<Shape> shapes =
      kTiny ? std::vector<Shape>{{144, 128, 1}, {128, 352, 4}}
            : std::vector<Shape>{{4096, 4096, 1}, {4096, 11008, 16}, {2048, 2048, 1}};
  const std::vector<int64_t> row_counts =
      kTiny ? std::vector<int64_t>{1, 7} : std::vector<int64_t>{1, 2, 4, 8, 16, 64, 512};
  for (WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4,
                              WeightFormat::kF32, WeightFormat::kF16}) {
    for (const Shape& shape : shapes) {
      for (int64_t rows : row_counts) {
        const std::string name = std::string("Matmul/") + std::string(bellwether::Name(format)) + "/" +
                                 std::to_string(shape.rows) + "x" + std::to_string(shape.cols) +
                                 "/M:" + std::to_string(rows);
        for (int threads : {1, 2}) {
          benchmark::RegisterBenchmark(name.c_str(), Matmul, shape, format, rows)
              ->Threads(threads)
              ->UseRealTime()
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
