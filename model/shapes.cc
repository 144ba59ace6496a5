#include "model/shapes.h"

#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace bellwether {
namespace {

struct Shape {
  const char* name;
  Architecture architecture;
  int32_t hidden, ffn, layers, heads, kv_heads, vocab, max_positions;
};

constexpr Shape kShapes[] = {
    {"llama-1.1b", Architecture::kLlama, 2048, 5632, 22, 32, 4, 32000, 2048},
    {"llama-7b", Architecture::kLlama, 4096, 11008, 32, 32, 32, 32000, 4096},
    {"llama-13b", Architecture::kLlama, 5120, 13824, 40, 40, 40, 32000, 4096},
    {"bloom-7b", Architecture::kBloom, 4096, 16384, 30, 32, 32, 250880, 2048},
    {"qwen2.5-7b", Architecture::kQwen2, 3584, 18944, 28, 28, 4, 152064, 32768},
    {"qwen3-8b", Architecture::kQwen3, 4096, 12288, 36, 32, 8, 151936, 40960},
    // The families by themselves are small enough for a test.
    {"llama", Architecture::kLlama, 64, 172, 2, 4, 2, 160, 512},
    {"bloom", Architecture::kBloom, 64, 256, 2, 4, 4, 160, 512},
    {"qwen2", Architecture::kQwen2, 64, 172, 2, 4, 2, 160, 512},
    {"qwen3", Architecture::kQwen3, 64, 172, 2, 4, 2, 160, 512},
};

bool IsFamily(const Shape& shape) {
  return absl::string_view(shape.name).find('-') == absl::string_view::npos;
}

// Changes to a shape, as given.
struct Changes {
  std::optional<int32_t> hidden, layers, heads, kv_heads, head_dim, ffn, vocab, positions, tied, bias;
};

struct NamedChange {
  const char* name;
  std::optional<int32_t> Changes::*member;
};
constexpr NamedChange kChanges[] = {
    {"hidden", &Changes::hidden},     {"layers", &Changes::layers},       {"heads", &Changes::heads},
    {"kv_heads", &Changes::kv_heads}, {"head_dim", &Changes::head_dim},   {"ffn", &Changes::ffn},
    {"vocab", &Changes::vocab},       {"positions", &Changes::positions}, {"tied", &Changes::tied},
    {"bias", &Changes::bias},
};

absl::StatusOr<Changes> ParseChanges(const std::string& text) {
  Changes changes;
  for (const absl::string_view change : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(change, absl::MaxSplits('=', 1));
    const NamedChange* found = nullptr;
    for (const NamedChange& candidate : kChanges) {
      if (parts.first == candidate.name) found = &candidate;
    }
    int32_t value = 0;
    if (found == nullptr || !absl::SimpleAtoi(parts.second, &value) || value < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "shape: '", change, "' is not one of ",
          absl::StrJoin(kChanges, ", ", [](std::string* out, const NamedChange& c) { out->append(c.name); }),
          " with a number"));
    }
    changes.*(found->member) = value;
  }
  return changes;
}

void SetFamily(Architecture architecture, ModelConfig& config) {
  config.architecture = architecture;
  config.norm_epsilon = 1e-5;
  config.qkv_bias = architecture == Architecture::kQwen2;
  config.head_norm = architecture == Architecture::kQwen3;
  if (architecture != Architecture::kBloom) return;
  config.layer_norm = config.embedding_norm = config.alibi = config.tied_head = true;
  config.gated_mlp = false;
  config.qkv_bias = config.attention_output_bias = config.mlp_bias = true;
}

absl::StatusOr<ModelConfig> Apply(const Shape& shape, const Changes& changes) {
  ModelConfig config;
  SetFamily(shape.architecture, config);
  const bool bloom = shape.architecture == Architecture::kBloom;
  config.hidden = changes.hidden.value_or(shape.hidden);
  config.layers = changes.layers.value_or(shape.layers);
  config.heads = changes.heads.value_or(shape.heads);
  const int32_t kv_heads_default = changes.heads.has_value() ? config.heads : shape.kv_heads;
  config.kv_heads = changes.kv_heads.value_or(kv_heads_default);
  const bool divides = config.heads > 0 && config.hidden % config.heads == 0;
  if (!changes.head_dim.has_value() && !divides) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape: hidden ", config.hidden, " does not divide by ", config.heads, " heads"));
  }
  config.head_dim = changes.head_dim.has_value() ? *changes.head_dim : config.hidden / config.heads;
  config.ffn = changes.ffn.value_or(bloom ? 4 * std::min(config.hidden, kHiddenMax) : shape.ffn);
  config.vocab = changes.vocab.value_or(shape.vocab);
  config.max_positions = changes.positions.value_or(shape.max_positions);
  if (changes.tied.has_value()) config.tied_head = *changes.tied != 0;
  if (changes.bias.has_value() && !bloom) {
    config.qkv_bias = config.attention_output_bias = config.mlp_bias = *changes.bias != 0;
  }
  BW_RETURN_IF_ERROR(Annotate(Validate(config), "shape"));
  return config;
}

}  // namespace

std::vector<std::string> ShapeNames() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) {
    if (!IsFamily(shape)) names.push_back(shape.name);
  }
  return names;
}

absl::StatusOr<ModelConfig> ParseShape(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('?', 1));
  for (const Shape& shape : kShapes) {
    if (parts.first != shape.name) continue;
    BW_ASSIGN_OR_RETURN(const Changes changes, ParseChanges(parts.second));
    return Apply(shape, changes);
  }
  return absl::InvalidArgumentError(absl::StrCat("no shape '", parts.first, "'; there are ",
                                                 absl::StrJoin(ShapeNames(), ", "),
                                                 ", llama, bloom, qwen2 and qwen3"));
}

}  // namespace bellwether
