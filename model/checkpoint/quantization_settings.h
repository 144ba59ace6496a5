#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/json.h"
#include "model/checkpoint/read_options.h"
#include "model/quantization_config.h"

namespace bellwether {

// What a Hugging Face directory says of quantised matrices, as the tool that made them wrote it.
struct QuantizationSettings {
  Json object;       // null: nothing
  std::string path;  // of the file that says it, the first of several
};

// From `quantization_config` of config.json, quantize_config.json (GPTQ's tools) and quant_config.json
// (AWQ's): what only one of them says counts. InvalidArgument, naming both files, if they contradict each
// other in what decides the values: method, bits, group, format, symmetry.
absl::StatusOr<QuantizationSettings> ReadQuantizationSettings(const std::string& dir);

// The settings with what the command line adds. InvalidArgument, naming the flag, if the two contradict each
// other.
absl::StatusOr<QuantizationConfig> MergeQuantization(const QuantizationSettings& settings,
                                                     const GptqOptions& options);

}  // namespace bellwether
