#include "model/checkpoint/meta_names.h"

#include "absl/types/span.h"
#include "model/checkpoint/hugging_face_names.h"

namespace bellwether {
namespace {

struct NamedRole {
  std::string_view name;
  TensorRole role;
};
constexpr NamedRole kOutside[] = {{"tok_embeddings", TensorRole::kEmbedding},
                                  {"norm", TensorRole::kFinalNorm},
                                  {"output", TensorRole::kHead}};
constexpr NamedRole kLayer[] = {
    {"attention_norm", TensorRole::kAttentionNorm},
    {"attention.wq", TensorRole::kQuery},
    {"attention.wk", TensorRole::kKey},
    {"attention.wv", TensorRole::kValue},
    {"attention.wo", TensorRole::kAttentionOutput},
    {"ffn_norm", TensorRole::kMlpNorm},
    {"feed_forward.w1", TensorRole::kGate},
    {"feed_forward.w2", TensorRole::kDown},
    {"feed_forward.w3", TensorRole::kUp},
};

}  // namespace

std::optional<TensorKey> ParseMetaName(std::string_view name) {
  const std::optional<int32_t> layer = TakeLayer("layers.", name);
  const std::optional<bool> bias = TakeWeightOrBias(name);
  if (!bias.has_value() || *bias) return std::nullopt;
  const absl::Span<const NamedRole> table =
      layer.has_value() ? absl::Span<const NamedRole>(kLayer) : absl::Span<const NamedRole>(kOutside);
  for (const NamedRole& entry : table) {
    if (entry.name == name) return TensorKey{entry.role, layer.value_or(0)};
  }
  return std::nullopt;
}

}  // namespace bellwether
