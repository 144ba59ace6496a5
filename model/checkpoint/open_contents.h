#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// What Checkpoint::Open finds where `model` lies, with what the options make of it.
absl::StatusOr<CheckpointContents> OpenContents(const std::string& model, const ReadOptions& options = {});

}  // namespace bellwether
