#pragma once

#include <cstdint>
#include <vector>

#include "model/shard_size.h"

namespace bellwether {

// What a rank takes in the memory of a GPU, known before anything is loaded. Kernels for GPUs read weights in
// a form of their own (kernels/gpu/weights.h), which this room may not ask: tests/layouts holds the two
// together.

// As KvBlockBytes: bf16 heads are padded to whole tensor core steps.
int64_t GpuKvBlockBytes(const ModelConfig& config, DType kv_type, const StageLayout& stage, int rank);

// How many bf16 values a value of this format is the sum of where GPUs multiply; activations are kept as
// precisely (kernels/gpu/weights.h).
constexpr int GpuLimbs(WeightFormat format) {
  return format == WeightFormat::kF32 ? 3 : format == WeightFormat::kF16 ? 2 : 1;
}
// Products of limbs that a product of such weights takes: what it is slower by than one of bf16.
constexpr int GpuLimbProducts(WeightFormat format) { return GpuLimbs(format) * (GpuLimbs(format) + 1) / 2; }

struct GpuStepLimits {
  int32_t step_tokens = 0;     // of a step, at most
  int32_t context_tokens = 0;  // of a sequence, at most
  int limbs = 1;               // of activations (MostGpuLimbs)
};
// What a step works in, beside weights and KV cache (worker/device/gpu_ops.cc, worker/decoder).
int64_t GpuScratchBytes(const ModelConfig& config, const RankLayout& rank, const GpuStepLimits& limits,
                        bool last_stage);

// Beside that: what its ranks send each other by NCCL (worker/link/nccl_group.cc). Those that do not have it
// take none.
int64_t GpuMessageBytes(const ModelConfig& config, const StageLayout& stage, const GpuStepLimits& limits);

// Weights are packed by the host, and go to the GPU, in pieces of this size (worker/device/gpu_weights.h).
inline constexpr int64_t kGpuPieceBytes = int64_t{64} << 20;
// What a worker pins of its host's memory, whatever its part: what weights go through, and of a step what the
// GPU and the host hand each other (worker/device/gpu_ops.cc, worker/stage_links.cc,
// worker/link/staged_group.cc, worker/decoder/output_head.cc). Weights that stream from there come on top.
int64_t GpuPinnedBytes(const ModelConfig& config, const GpuStepLimits& limits);

// Bytes of a matrix with `rows` rows and the columns between `bounds`, those of its slices (columns of the
// whole tensor; two bounds without slices). Exact but for its tables, a few KiB that count as a little more.
// `segment`: columns that are summed on their own, at most.
int64_t GpuMatrixBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                       int64_t segment);
// What it takes in an image that comes and goes (worker/device/gpu_weights.h): the rest stays. Exact.
int64_t GpuMatrixImageBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                            int64_t segment);

}  // namespace bellwether
