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

struct GpuStepLimits {
  int32_t step_tokens = 0;     // of a step, at most
  int32_t context_tokens = 0;  // of a sequence, at most
};
// What a step works in, beside weights and KV cache (worker/device/gpu_ops.cc, worker/decoder).
int64_t GpuScratchBytes(const ModelConfig& config, const RankLayout& rank, const GpuStepLimits& limits,
                        bool last_stage);

// Bytes of a matrix with `rows` rows and the columns between `bounds`, those of its slices (columns of the
// whole tensor; two bounds without slices). Exact but for its tables, a few KiB that count as a little more.
// `segment`: columns that are summed on their own, at most.
int64_t GpuMatrixBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                       int64_t segment);
// What it takes in an image that comes and goes (worker/device/gpu_weights.h): the rest stays. Exact.
int64_t GpuMatrixImageBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                            int64_t segment);

}  // namespace bellwether
