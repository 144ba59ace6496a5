#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/named_tensor.h"
#include "model/quantization_config.h"

namespace bellwether {

// A matrix that several tensors of a checkpoint make up.
struct AssembledTensor {
  HuggingFaceName name;
  StoredTensor tensor;  // rows and columns as stored, before a fused one is split
};

// Puts the parts of quantised matrices together. `table` says which shapes the model asks for; bits and
// groups follow from those of the parts and must agree with `config`. InvalidArgument and Unimplemented name
// the tensor.
absl::StatusOr<std::vector<AssembledTensor>> AssembleQuantized(absl::Span<const NamedTensor> tensors,
                                                               const QuantizationConfig& config,
                                                               const TensorTable& table);

// Tools of 2023 gave every quantised matrix a bias, full of zeros where the model has none: takes those out.
// InvalidArgument, naming it, if one is not zero.
absl::Status RemoveZeroBiases(const ModelConfig& config, std::vector<NamedTensor>& tensors);

}  // namespace bellwether
