#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/safetensors_writer.h"

namespace bellwether {

// The tensors of a checkpoint under the names that transformers' models give them; `contents`, whose input
// orders have been undone (input_order.h), must outlive them. Floats are as ReadStored gives them.
// What GPTQ and AWQ quantised is written part by part as it is, unless `dequantized`. Unimplemented, naming
// the tensor: one in blocks, as GGUF has it, for which safetensors have no form.
absl::StatusOr<std::vector<OutputTensor>> OutputTensors(const CheckpointContents& contents, bool dequantized);

}  // namespace bellwether
