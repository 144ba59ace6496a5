#pragma once

#include "absl/status/status.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// Merges a LoRA adapter in PEFT's form (adapter_config.json, adapter_model.safetensors or .bin) into a model
// of floats: the tensors that it changes read as W + scale * B A from then on, summed in fp32 and rounded
// once; those that it saved whole take the place of the model's, with a larger vocabulary and its tokenizer
// if it has them. InvalidArgument and Unimplemented name file, tensor and what cannot be merged.
absl::Status MergeLora(const LoraOption& option, CheckpointContents& contents);

}  // namespace bellwether
