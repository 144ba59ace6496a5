#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/ggml.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// Opens a LLaMA in GGML's formats before GGUF. What they do not say is as the LLaMA of that time has it:
// RMSNorm's epsilon 1e-6, 2048 positions, RoPE's base 10000.
absl::StatusOr<CheckpointContents> OpenGgmlCheckpoint(const std::string& path);

// The parts of it, for tests: InvalidArgument where sizes contradict the tensors.
absl::StatusOr<ModelConfig> GgmlConfig(const GgmlFile& ggml);
// Sentencepiece's vocabulary, from pieces whose kinds the file does not tell: ids 0, 1 and 2 are LLaMA's
// special tokens, 3 to 258 its bytes. Without scores a piece's is -id, the order in which LLaMA's were
// learned; only its two blanks were not, and come last.
GgufVocabulary GgmlVocabulary(const GgmlFile& ggml);

}  // namespace bellwether
