#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace bellwether {

// What params.json of Meta's LLaMA checkpoints says. Its vocabulary and context length come from the tensors,
// which the caller fills in.
struct MetaParams {
  ModelConfig config;  // vocab 0, max_positions 0 unless the file says
  bool scaled_rope = false;
};

// InvalidArgument, naming the key, for a value that cannot be, and for every key that is not known: it may
// change the maths.
absl::StatusOr<MetaParams> ParseMetaParams(const std::string& json_text);

// The config of a model with an embedding of `vocab` rows. How many positions it was made for and which
// tokens end a text its files do not say: they follow from the generation of LLaMA that they belong to.
// `rope_in_layers`: each layer stores its own table of RoPE, as only LLaMA 1 did.
ModelConfig CompleteMetaConfig(const MetaParams& params, int32_t vocab, bool rope_in_layers);

}  // namespace bellwether
