#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/dtype.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

struct ConvertOptions {
  std::string kind;    // "xor", "billa" or "safetensors"
  std::string base;    // xor and billa: Meta's weights
  std::string model;   // what is converted: a directory or a file
  std::string output;  // a directory
  bool force = false;  // billa: although the numbers speak against it
  ReadOptions read;    // safetensors: how it is read
  // safetensors: quantised matrices become floats of it; absent: they stay as they are.
  std::optional<DType> dequantize;
};

// xor: the plain files of a model that BELLE encrypted; what is done already is not done again.
// billa: BiLLa without Meta's embedding. safetensors: any model in that form, GGUF and GGML dequantised.
// No file is overwritten.
absl::Status RunConvert(const ConvertOptions& options);

}  // namespace bellwether
