#pragma once

#include "absl/status/statusor.h"
#include "common/json.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// config.json of a checkpoint that is written as safetensors: the source's, or a new one where it has none,
// with what has become of vocabulary and types and, unless `dequantized`, the settings of quantised matrices.
// Unimplemented, by name: what config.json has no words for.
absl::StatusOr<Json> OutputConfig(const CheckpointContents& contents, bool dequantized);

}  // namespace bellwether
