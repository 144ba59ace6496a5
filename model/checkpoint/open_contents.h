#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// What Checkpoint::Open finds where `model` lies, before any option changes it.
absl::StatusOr<CheckpointContents> OpenContents(const std::string& model);

}  // namespace bellwether
