#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/dtype.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

struct ExportOptions {
  std::string directory;  // made if it is not there; no file in it is overwritten
  std::string note;       // for the files' metadata: what is done to the weights, beside what was before
  // Quantised matrices become floats of it; absent: they stay as they are.
  std::optional<DType> dequantize;
  int64_t shard_bytes = int64_t{5} << 30;
  // Called with the bytes written of all; false ends the work with Cancelled.
  std::function<bool(int64_t done, int64_t all)> progress;
};

// Writes a model as Hugging Face has it: safetensors files, config.json, and its tokenizer. Every tensor of
// floats has the type and the bits that Checkpoint::ReadFloats gives, and what GPTQ and AWQ quantised its own
// parts, with quantize_config.json. Unimplemented: without `dequantize` what lies in blocks (GGUF, GGML);
// random models; what config.json cannot say. Errors name the file.
absl::Status ExportSafetensors(CheckpointContents contents, const ExportOptions& options);

}  // namespace bellwether
