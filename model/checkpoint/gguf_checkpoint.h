#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/gguf.h"

namespace bellwether {

// Opens a GGUF file of the architectures `llama` and `bloom`. Other files are refused with what they seem to
// be.
absl::StatusOr<CheckpointContents> OpenGgufCheckpoint(const std::string& path);

// The config that a GGUF file's metadata and tensors describe. `file` is the whole file that `gguf` was
// parsed from.
absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& gguf, absl::Span<const std::byte> file);
// What it says of its tokenizer. NotFound if it has none.
absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& gguf);

}  // namespace bellwether
