#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// Opens a Hugging Face checkpoint directory: config.json, generation_config.json (optional) and one or
// several files of safetensors or torch. Directories that hold weights in another container are refused with
// what to convert.
absl::StatusOr<CheckpointContents> OpenHuggingFaceDirectory(const std::string& dir, const GptqOptions& gptq);
// The same with the weights of this file; the others are looked for beside it.
absl::StatusOr<CheckpointContents> OpenHuggingFaceFile(const std::string& path, const GptqOptions& gptq);

}  // namespace bellwether
