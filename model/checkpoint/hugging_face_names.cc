#include "model/checkpoint/hugging_face_names.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

struct NamedRole {
  std::string_view name;
  TensorRole role;
};

constexpr NamedRole kLlamaOutside[] = {{"embed_tokens", TensorRole::kEmbedding},
                                       {"norm", TensorRole::kFinalNorm},
                                       {"lm_head", TensorRole::kHead}};
constexpr NamedRole kLlamaLayer[] = {
    {"input_layernorm", TensorRole::kAttentionNorm},
    {"self_attn.q_proj", TensorRole::kQuery},
    {"self_attn.k_proj", TensorRole::kKey},
    {"self_attn.v_proj", TensorRole::kValue},
    {"self_attn.q_norm", TensorRole::kQueryNorm},
    {"self_attn.k_norm", TensorRole::kKeyNorm},
    {"self_attn.o_proj", TensorRole::kAttentionOutput},
    {"post_attention_layernorm", TensorRole::kMlpNorm},
    {"mlp.gate_proj", TensorRole::kGate},
    {"mlp.up_proj", TensorRole::kUp},
    {"mlp.down_proj", TensorRole::kDown},
};
constexpr NamedRole kBloomOutside[] = {{"word_embeddings", TensorRole::kEmbedding},
                                       {"word_embeddings_layernorm", TensorRole::kEmbeddingNorm},
                                       {"ln_f", TensorRole::kFinalNorm},
                                       {"lm_head", TensorRole::kHead}};
constexpr std::string_view kBloomFused = "self_attention.query_key_value";
constexpr NamedRole kBloomLayer[] = {
    {"input_layernorm", TensorRole::kAttentionNorm},
    {kBloomFused, TensorRole::kQuery},
    {"self_attention.dense", TensorRole::kAttentionOutput},
    {"post_attention_layernorm", TensorRole::kMlpNorm},
    {"mlp.dense_h_to_4h", TensorRole::kUp},
    {"mlp.dense_4h_to_h", TensorRole::kDown},
};

// Tables and masks that old versions of transformers stored with the weights, and that every loader computes
// anew.
constexpr std::string_view kBuffers[] = {
    ".rotary_emb.inv_freq",   ".rotary_emb.original_inv_freq",   ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
    ".attention.bias",  // causal masks
    ".attention.masked_bias", ".scale_mask_softmax.causal_mask", ".position_ids",
};

bool IsBuffer(std::string_view name) {
  return std::any_of(std::begin(kBuffers), std::end(kBuffers), [&](std::string_view buffer) {
    return name.ends_with(buffer) || name == buffer.substr(1);
  });
}

constexpr std::pair<std::string_view, LinearPart> kLinearSuffixes[] = {
    {".qweight", LinearPart::kWeights},
    {".qzeros", LinearPart::kZeros},
    {".scales", LinearPart::kScales},
    {".g_idx", LinearPart::kGroupIndex},
};

LinearPart TakeLinearPart(std::string_view& name) {
  for (const auto& [suffix, part] : kLinearSuffixes) {
    if (!name.ends_with(suffix)) continue;
    name.remove_suffix(suffix.size());
    return part;
  }
  return LinearPart::kNone;
}

template <size_t N>
std::optional<std::string_view> NameOf(const NamedRole (&table)[N], TensorRole role) {
  for (const NamedRole& entry : table) {
    if (entry.role == role) return entry.name;
  }
  return std::nullopt;
}

template <size_t N>
std::optional<TensorRole> RoleOf(const NamedRole (&table)[N], std::string_view name) {
  for (const NamedRole& entry : table) {
    if (entry.name == name) return entry.role;
  }
  return std::nullopt;
}

}  // namespace

std::optional<int32_t> TakeLayer(std::string_view prefix, std::string_view& name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  std::string_view rest = name.substr(prefix.size());
  int32_t layer = 0;
  size_t digits = 0;
  while (digits < rest.size() && digits < 6 && rest[digits] >= '0' && rest[digits] <= '9') {
    layer = layer * 10 + (rest[digits++] - '0');
  }
  if (digits == 0 || digits == rest.size() || rest[digits] != '.') return std::nullopt;
  name = rest.substr(digits + 1);
  return layer;
}

std::optional<bool> TakeWeightOrBias(std::string_view& name) {
  for (const std::string_view suffix : {".weight", ".bias"}) {
    if (!name.ends_with(suffix)) continue;
    name.remove_suffix(suffix.size());
    return suffix == ".bias";
  }
  return std::nullopt;
}

std::string HuggingFaceNameOf(Architecture architecture, const TensorKey& key) {
  const bool llama = architecture != Architecture::kBloom;
  const bool fused = !llama && (key.role == TensorRole::kKey || key.role == TensorRole::kValue);
  const TensorRole role = fused ? TensorRole::kQuery : key.role;
  const char* end = key.bias ? ".bias" : ".weight";
  if (role == TensorRole::kHead) return absl::StrCat("lm_head", end);
  const std::string prefix = llama ? "model." : "transformer.";
  if (const auto name = llama ? NameOf(kLlamaOutside, role) : NameOf(kBloomOutside, role))
    return absl::StrCat(prefix, std::string(*name), end);
  const auto name = llama ? NameOf(kLlamaLayer, role) : NameOf(kBloomLayer, role);
  return absl::StrCat(prefix, llama ? "layers." : "h.", key.layer, ".", std::string(name.value_or("")), end);
}

std::optional<HuggingFaceName> ParseHuggingFaceName(Architecture architecture, std::string_view name) {
  const bool llama = architecture != Architecture::kBloom;
  const std::string_view prefix = llama ? "model." : "transformer.";
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  HuggingFaceName result;
  if (IsBuffer(name)) {
    result.ignored = true;
    return result;
  }
  const std::optional<int32_t> layer = TakeLayer(llama ? "layers." : "h.", name);
  const std::optional<bool> bias = TakeWeightOrBias(name);
  if (!bias.has_value()) result.part = TakeLinearPart(name);
  if (!bias.has_value() && result.part == LinearPart::kNone) return std::nullopt;
  std::optional<TensorRole> role;
  if (layer.has_value()) {
    role = llama ? RoleOf(kLlamaLayer, name) : RoleOf(kBloomLayer, name);
  } else {
    role = llama ? RoleOf(kLlamaOutside, name) : RoleOf(kBloomOutside, name);
  }
  if (!role.has_value()) return std::nullopt;
  result.key = {*role, layer.value_or(0), bias.value_or(false)};
  result.fused_qkv = name == kBloomFused;
  return result;
}

}  // namespace bellwether
