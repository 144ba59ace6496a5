#pragma once

#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// Writes the files of a model's tokenizer into `directory`: copies, or made ones where the model's own file
// holds the vocabulary; and generation_config.json. Nothing where there is no tokenizer. No file is
// overwritten.
absl::Status ExportTokenizer(const CheckpointContents& contents, const std::string& directory);

}  // namespace bellwether
