#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace bellwether {

// The config of a shape without weights: a name of ShapeNames(), or a family ("llama", "bloom", "qwen2" or
// "qwen3", small by themselves), either with changes, e.g.
// "llama?hidden=64,layers=2,heads=4,kv_heads=2,ffn=172,vocab=160".
// Possible changes: hidden, layers, heads, kv_heads, head_dim, ffn, vocab, positions, tied (0 or 1), bias (0
// or 1, not BLOOM). Shapes have no end-of-sequence token. InvalidArgument says what is possible.
absl::StatusOr<ModelConfig> ParseShape(const std::string& text);

// "llama-1.1b", "llama-7b" ...
std::vector<std::string> ShapeNames();

}  // namespace bellwether
