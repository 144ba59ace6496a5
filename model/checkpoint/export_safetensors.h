#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

struct ExportOptions {
  std::string directory;  // made if it is not there; no file in it is overwritten
  ReadOptions read;       // with which the checkpoint was opened
  std::string note;       // for the files' metadata: what was done to the weights
  int64_t shard_bytes = int64_t{5} << 30;
  // Called with the bytes written of all; false ends the work with Cancelled.
  std::function<bool(int64_t done, int64_t all)> progress;
};

// Writes a model of floats as Hugging Face has it: safetensors files, config.json, and copies of its
// tokenizer's files. Every tensor has the type and the bits that Checkpoint::ReadFloats gives. Unimplemented:
// quantised models and random ones. Errors name the file.
absl::Status ExportSafetensors(const Checkpoint& checkpoint, const ExportOptions& options);

}  // namespace bellwether
