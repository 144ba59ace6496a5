#include "worker/device/gpu_rates.h"

#include <algorithm>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "model/config.h"
#include "worker/device/gpu_ops.h"
#include "worker/device/gpu_weights.h"

namespace bellwether {
namespace {

// A card that had nothing to do has a slow clock. How long it takes to the full one nobody has measured here.
constexpr absl::Duration kFullClockAfter = absl::Milliseconds(100);

}  // namespace

absl::StatusOr<double> MeasureProductRate(const std::shared_ptr<gpu::Runtime>& runtime,
                                          const ProductSample& sample) {
  const int64_t rows = sample.rows, width = sample.width;
  const ModelConfig config = {.layers = 1,
                              .hidden = static_cast<int32_t>(width),
                              .heads = 1,
                              .kv_heads = 1,
                              .head_dim = 16,
                              .ffn = static_cast<int32_t>(width),
                              .vocab = 16};
  BW_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceOps> ops,
                      GpuOps::Create(runtime,
                                     {.config = &config,
                                      .kernel_level = runtime->info().numeric_class,
                                      .rank = {.slices = {0, 1}},
                                      .layers = 1,
                                      .kv_blocks = 1,
                                      .context_tokens = 32,
                                      .step_tokens = static_cast<int32_t>(rows),
                                      .gpu_limbs = gpu::Limbs(sample.format),
                                      .roots = {{0, 1}}},
                                     rows, /*threads=*/1));
  const kernels::MatrixSpec spec = {.rows = width, .cols = width, .format = sample.format};
  BW_ASSIGN_OR_RETURN(const std::unique_ptr<GpuMatrix> matrix,
                      GpuMatrix::CreateRandom(runtime, spec, /*seed=*/1));
  BW_ASSIGN_OR_RETURN(float* const x, ops->Allocate(rows * width));
  BW_ASSIGN_OR_RETURN(float* const y, ops->Allocate(rows * width));
  // Zeros would let the card run faster than it does.
  std::vector<float> values(rows * width);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i * 2654435761u % 2048) / 1024 - 1;
  BW_RETURN_IF_ERROR(ops->Write(values, x));

  const Product product = {.weights = matrix.get(), .y = y, .stride = width};
  ops->Multiply({x, rows, width}, {&product, 1});
  BW_RETURN_IF_ERROR(ops->Finish());
  absl::Duration best = absl::InfiniteDuration();
  const absl::Duration first = Clock::Real()->Now();
  for (absl::Duration begin = first, end = first; end - first < kFullClockAfter; begin = end) {
    for (int i = 0; i < sample.times; ++i) ops->Multiply({x, rows, width}, {&product, 1});
    BW_RETURN_IF_ERROR(ops->Finish());
    end = Clock::Real()->Now();
    best = std::min(best, end - begin);
  }
  const double seconds = std::max(absl::ToDoubleSeconds(best), 1e-9);
  return 2.0 * sample.times * static_cast<double>(rows * width * width) / seconds;
}

}  // namespace bellwether
