#pragma once

#include "absl/status/statusor.h"
#include "common/generation_options.h"
#include "proto/bellwether/v1/inference.pb.h"

namespace bellwether {

// What clients ask for, between our structs and the wire. Decoding limits counts only; whether values are
// allowed is request_validation's job, which names the field.

void Encode(const GenerationOptions& options, v1::GenerationOptions* out);
absl::StatusOr<GenerationOptions> Decode(const v1::GenerationOptions& message);

void Encode(const PromptInput& prompt, v1::Prompt* out);
// InvalidArgument if neither text nor token ids are given.
absl::StatusOr<PromptInput> Decode(const v1::Prompt& message);

}  // namespace bellwether
