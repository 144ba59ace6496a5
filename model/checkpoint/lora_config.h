#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace bellwether {

// What adapter_config.json of PEFT says of a LoRA adapter.
struct LoraConfig {
  int64_t rank = 8;
  double alpha = 8;
  bool rank_stabilised = false;  // scaled by alpha / sqrt(rank), not alpha / rank
  // Of modules whose whole name, or its end after a dot, a pattern matches, the first such pattern's.
  std::vector<std::pair<std::string, int64_t>> ranks;
  std::vector<std::pair<std::string, double>> alphas;
  // Names, or their ends, of modules that the adapter is said to change and to hold as a whole. Empty where a
  // pattern says it.
  std::vector<std::string> targets, saved;
};

// InvalidArgument: not of LoRA, or values that cannot be. Unimplemented: keys that change the maths in a way
// that is not supported, and keys that are not known, by name.
absl::StatusOr<LoraConfig> ParseLoraConfig(const std::string& json_text);

// What of it decides the values that adapters of equal tensors are merged with.
std::string Describe(const LoraConfig& config);

// Of one module, such as "model.layers.0.self_attn.q_proj".
absl::StatusOr<int64_t> LoraRank(const LoraConfig& config, std::string_view module);
// By what the product of its two matrices is multiplied.
absl::StatusOr<double> LoraScale(const LoraConfig& config, std::string_view module);

}  // namespace bellwether
