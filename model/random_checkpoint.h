#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/dtype.h"
#include "model/checkpoint/contents.h"
#include "model/config.h"

namespace bellwether {

// Models of any shape without files: every weight is a function of (seed, tensor, row, column), so all
// workers see the same model whatever window they read. Checkpoint::Open takes them by name:
//   random:SHAPE[:FORMAT[:SEED]]    e.g. "random:llama-7b:int4", "random:bloom?hidden=60,heads=5:fp32:7"
// SHAPE as model/shapes.h has it, FORMAT of all matrices fp32, bf16 (default), fp16, int8 or int4 (groups of
// 32 with fp16 scales). Norms and biases are fp32. There is no tokenizer.
inline constexpr char kRandomPrefix[] = "random:";

absl::StatusOr<CheckpointContents> MakeRandomContents(const std::string& name);
CheckpointContents MakeRandomContents(const ModelConfig& config, WeightFormat format, uint64_t seed);

// Columns [first_col, first_col + out.size()) of a row, as floats; of quantised tensors scale * q.
void RandomFloats(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out);
// The same of a quantised tensor; first_col is a multiple of the group.
void RandomQuantized(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<int8_t> q,
                     float* scales);

}  // namespace bellwether
