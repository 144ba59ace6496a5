#pragma once

#include <optional>
#include <string_view>

#include "model/checkpoint/checkpoint.h"

namespace bellwether {

// What a tensor is by its name in LLaMA as Meta wrote it, which GGML's files before GGUF kept. Nothing for a
// name that LLaMA does not have.
std::optional<TensorKey> ParseMetaName(std::string_view name);

}  // namespace bellwether
