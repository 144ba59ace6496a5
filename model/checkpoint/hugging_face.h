#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// Opens a Hugging Face checkpoint directory: config.json, generation_config.json (optional) and one or
// several .safetensors files. Directories that hold weights in another container are refused with what to
// convert.
absl::StatusOr<CheckpointContents> OpenHuggingFaceDirectory(const std::string& dir);

}  // namespace bellwether
