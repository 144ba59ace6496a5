#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/json.h"

namespace bellwether {

// What the tools of GPTQ and AWQ say about the matrices they wrote: `quantization_config` of config.json, or
// a file of its own. As it begins, BELLE's files are, which say nothing.
struct QuantizationConfig {
  enum class Method : uint8_t { kGptq, kAwq };
  Method method = Method::kGptq;
  std::optional<int> bits;       // absent: as the shapes say
  std::optional<int64_t> group;  // inputs that share a scale, -1: all; absent: as the shapes say
  bool symmetric = false;        // every zero is 2^(bits - 1)
  bool act_order = false;        // groups are of inputs that do not follow each other
  bool true_zeros = false;       // zeros are stored as they are (gptq_v2, AWQ), else less 1
  bool per_matrix = false;       // some matrices have settings of their own
  friend bool operator==(const QuantizationConfig&, const QuantizationConfig&) = default;
};

// 2, 3, 4 or 8.
bool IsGptqBits(int64_t bits);

// InvalidArgument and Unimplemented, naming the key or the method and what to use instead.
absl::StatusOr<QuantizationConfig> ParseQuantizationConfig(const Json& object);

}  // namespace bellwether
