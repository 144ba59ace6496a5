#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// Whether `dir` is a LLaMA as Meta publishes it: params.json and consolidated.00.pth, no config.json.
bool IsMetaLlama(const std::string& dir);

// Opens one. Its tensors lie in consolidated.00.pth, consolidated.01.pth ... in equal parts of their rows or
// columns; which, their shapes tell. The tokenizer lies beside them or one directory up. InvalidArgument and
// Unimplemented name file, tensor and reason.
absl::StatusOr<CheckpointContents> OpenMetaLlama(const std::string& dir);

}  // namespace bellwether
