#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/json.h"
#include "model/regex.h"

namespace bellwether {

// A rule of GPTQModel's `dynamic`: what it says of the matrices that it matches; absent: as for all others.
struct MatrixRule {
  std::string pattern;  // a regular expression that a name begins with
  std::optional<int> bits;
  std::optional<int64_t> group;
  std::optional<bool> act_order;
  friend bool operator==(const MatrixRule&, const MatrixRule&) = default;
};

// What the tools of GPTQ and AWQ say about the matrices they wrote: `quantization_config` of config.json, or
// a file of its own. As it begins, BELLE's files are, which say nothing.
struct QuantizationConfig {
  enum class Method : uint8_t { kGptq, kAwq };
  Method method = Method::kGptq;
  std::optional<int> bits;       // absent: as the shapes say
  std::optional<int64_t> group;  // inputs that share a scale, -1: all; absent: as the shapes say
  bool symmetric = false;        // every zero is 2^(bits - 1)
  // Groups are of inputs that do not follow each other, so that a g_idx must say which; absent: nothing is
  // said.
  std::optional<bool> act_order;
  bool true_zeros = false;        // zeros are stored as they are (gptq_v2, AWQ), else less 1
  std::vector<MatrixRule> rules;  // of some matrices; the first that matches counts
  friend bool operator==(const QuantizationConfig&, const QuantizationConfig&) = default;
};

// 2, 3, 4 or 8.
bool IsGptqBits(int64_t bits);

// InvalidArgument and Unimplemented, naming the key or the method and what to use instead.
absl::StatusOr<QuantizationConfig> ParseQuantizationConfig(const Json& object);

// The settings of each matrix.
class MatrixSettings {
 public:
  // InvalidArgument and Unimplemented, naming the pattern, if a rule's cannot be read.
  static absl::StatusOr<MatrixSettings> Compile(QuantizationConfig config);

  // Of one matrix, such as "model.layers.0.mlp.down_proj", without rules.
  absl::StatusOr<QuantizationConfig> Of(std::string_view module) const;

 private:
  explicit MatrixSettings(QuantizationConfig config) : config_(std::move(config)) {}
  QuantizationConfig config_;
  std::vector<Regex> patterns_;  // of its rules
};

}  // namespace bellwether
