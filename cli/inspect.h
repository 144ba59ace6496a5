#pragma once

#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

struct InspectOptions {
  std::string model;
  ReadOptions read;      // how it is read
  bool tensors = false;  // list every tensor
  bool json = false;
};
// What is in a checkpoint and whether it loads: config, formats, sizes, tokenizer, chat template, model id.
// Fails with the reason if it would not load.
absl::Status RunInspect(const InspectOptions& options);

}  // namespace bellwether
