#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/check.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/config.h"
#include "model/json_object.h"
#include "model/option_names.h"
#include "model/quantization_config.h"

// config.json of the Hugging Face checkpoints of all families, in all the spellings of their history.

namespace bellwether {
namespace {

// What transformers takes for keys that a family's config lacks.
struct Defaults {
  Architecture architecture;
  int32_t positions;
  std::optional<TokenId> bos, eos;
  std::optional<int32_t> head_dim;  // else hidden / heads
  std::optional<int32_t> window;    // of attention; none: the family knows of none
  bool slides = false;              // whether there is a window where nothing says so
};
constexpr Defaults kDefaults[] = {
    {.architecture = Architecture::kLlama, .positions = 2048, .bos = 1, .eos = 2},  // as in configs of 2023
    {.architecture = Architecture::kBloom, .positions = 2048, .bos = 1, .eos = 2},
    {.architecture = Architecture::kMistral,
     .positions = 131072,
     .bos = 1,
     .eos = 2,
     .window = 4096,
     .slides = true},
    {.architecture = Architecture::kQwen2, .positions = 32768, .window = 4096},
    {.architecture = Architecture::kQwen3, .positions = 32768, .head_dim = 128, .window = 4096},
};
const Defaults& DefaultsOf(Architecture architecture) {
  const auto* found = std::find_if(std::begin(kDefaults), std::end(kDefaults), [&](const Defaults& defaults) {
    return defaults.architecture == architecture;
  });
  BW_CHECK(found != std::end(kDefaults));
  return *found;
}

// Keys that some relative of these families has and that change the maths: refused unless the value is one
// that switches them off.
struct ForeignKey {
  const char* name;
  const char* means;
};
constexpr ForeignKey kForeignKeys[] = {
    {"attn_logit_softcapping", "capped attention scores"},
    {"final_logit_softcapping", "capped logits"},
    {"use_qk_norm", "normalised queries and keys"},
    {"qk_norm", "normalised queries and keys"},
    {"qk_layernorm", "normalised queries and keys"},
    {"num_local_experts", "a mixture of experts"},
    {"num_experts", "a mixture of experts"},
    {"n_routed_experts", "a mixture of experts"},
    {"clip_qkv", "clipped queries, keys and values"},
    {"parallel_attn", "attention beside the MLP"},
    {"use_parallel_residual", "attention beside the MLP"},
    {"pruned_heads", "attention without some of its heads"},
    {"add_cross_attention", "cross attention"},
    {"is_encoder_decoder", "an encoder"},
    {"rope_interleaved", "interleaved rotary pairs"},
    {"no_rope_layers", "layers without rotary embedding"},
    {"attention_multiplier", "scaled attention scores"},
    {"query_pre_attn_scalar", "scaled attention scores"},
    {"kv_lora_rank", "compressed keys and values"},
    {"compression_config", "compressed weights"},
};
// Keys whose neutral value is 1.
constexpr ForeignKey kForeignFactors[] = {
    {"partial_rotary_factor", "a rotary embedding of part of each head"},
    {"rotary_pct", "a rotary embedding of part of each head"},
    {"embedding_multiplier", "a scaled embedding"},
    {"residual_multiplier", "scaled residuals"},
    {"logits_scaling", "scaled logits"},
    {"logit_scale", "scaled logits"},
};

// Off: absent, null, false, 0, or an empty list or object.
bool IsOff(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  return (value.is_array() || value.is_object()) && value.empty();
}

void RefuseForeignKeys(const Json& object, JsonFields& fields) {
  for (const ForeignKey& key : kForeignKeys) {
    if (IsOff(object[key.name])) continue;
    fields.Fail(absl::StrCat("'", key.name, "' asks for ", key.means, ", which is not supported"));
  }
  for (const ForeignKey& key : kForeignFactors) {
    const Json& found = object[key.name];
    if (found.is_null() || found == Json(1)) continue;
    fields.Fail(absl::StrCat("'", key.name, "' asks for ", key.means, ", which is not supported"));
  }
  if (const Json& quantization = object["quantization_config"]; !IsOff(quantization)) {
    const absl::Status readable = ParseQuantizationConfig(quantization).status();
    if (!readable.ok()) fields.Fail(absl::StrCat("'quantization_config': ", std::string(readable.message())));
  }
}

// An integer that the limits of config.h hold, so that it fits 32 bits. Validate() checks the rest.
int32_t Dimension(JsonFields& fields, JsonFields::Names names, std::optional<int64_t> absent, int64_t most) {
  const int64_t value = fields.Integer(names, absent);
  if (fields.status().ok() && (value < 1 || value > most)) {
    fields.Fail(absl::StrCat("'", *names.begin(), "' is ", value, "; 1 to ", most, " is possible"));
  }
  return fields.status().ok() ? static_cast<int32_t>(value) : 1;
}

// Attention that sees only the last positions, in all layers or in some. Up to its size every position sees
// all before it, as without a window: that is how many positions such a model has here.
void ReadWindow(const Json& object, JsonFields& fields, ModelConfig& config) {
  const Defaults& defaults = DefaultsOf(config.architecture);
  const bool known = defaults.window.has_value();
  const bool given = object.contains("sliding_window");
  // Mistral's class has no such key.
  const bool slides = defaults.slides || fields.Bool({"use_sliding_window"}, !known);
  const bool has_window = slides && (given ? !IsOff(object["sliding_window"]) : known);
  bool some_slide = defaults.slides || object["layer_types"].empty();
  for (const Json& type : object["layer_types"]) {
    if (type == "full_attention") continue;
    if (!has_window || type != "sliding_attention") {
      return fields.Fail("'layer_types' asks for layers without full attention");
    }
    some_slide = true;
  }
  if (!has_window || !some_slide) return;
  if (!known) {
    return fields.Fail("'sliding_window' asks for sliding window attention, which is not supported");
  }
  const int32_t window = Dimension(fields, {"sliding_window"}, defaults.window, 1 << 30);
  config.max_positions = std::min(config.max_positions, window);
}

void ReadTokenIds(JsonFields& fields, ModelConfig& config) {
  for (int64_t id : fields.Integers("eos_token_id")) {
    if (id == -1) continue;  // "none" in some files
    if (id < 0 || id > kVocabMax) fields.Fail(absl::StrCat("'eos_token_id' is ", id));
    config.eos.push_back(static_cast<TokenId>(id));
  }
  const int64_t bos = fields.Integer({"bos_token_id"}, -1);
  if (bos < -1 || bos > kVocabMax) fields.Fail(absl::StrCat("'bos_token_id' is ", bos));
  if (bos >= 0) config.bos = static_cast<TokenId>(bos);
}

// Divides every frequency, as both spellings of a linear scaling do.
void ScaleLinearly(double factor, JsonFields& rope, ModelConfig& config) {
  if (factor == 1) return;
  if (config.rope_scaling.has_value() || !config.rope_factors.empty()) {
    return rope.Fail("contradicts the other rotary settings");
  }
  config.rope_factors.assign(config.head_dim / 2, static_cast<float>(factor));
}

// Whether a scaling that is not supported changes nothing, because its factor is 1.
bool IsNeutralScaling(const std::string& type, double factor, JsonFields& rope, const ModelConfig& config) {
  if (factor != 1 || (type != "dynamic" && type != "yarn")) return false;
  const double original = rope.Number({"original_max_position_embeddings"}, config.max_positions);
  return original == config.max_positions && rope.Number({"attention_factor"}, 1) == 1;
}

Llama3RopeScaling ReadLlama3Scaling(JsonFields& rope) {
  Llama3RopeScaling scaling;
  scaling.factor = rope.Number({"factor"}, std::nullopt);
  scaling.low_frequency_factor = rope.Number({"low_freq_factor"}, std::nullopt);
  scaling.high_frequency_factor = rope.Number({"high_freq_factor"}, std::nullopt);
  scaling.original_max_positions = rope.Number({"original_max_position_embeddings"}, std::nullopt);
  return scaling;
}

// What the type of a dictionary of rotary settings asks for.
void ReadScaling(JsonFields& rope, ModelConfig& config) {
  const std::string type = rope.Text({"rope_type", "type"}, "");
  if (type == "llama3") {
    const Llama3RopeScaling scaling = ReadLlama3Scaling(rope);
    if (config.rope_scaling.value_or(scaling) != scaling || !config.rope_factors.empty()) {
      rope.Fail("contradicts the other rotary settings");
    }
    config.rope_scaling = scaling;
    return;
  }
  if (type == "default") return;             // whatever factor stands beside it
  const double none = type.empty() ? 1 : 0;  // types that are not supported may have no factor
  const double factor = rope.Number({"factor"}, type == "linear" ? std::nullopt : std::optional(none));
  if (type == "linear") return ScaleLinearly(factor, rope, config);
  if (type.empty() && factor == 1) return;
  if (type.empty()) return rope.Fail(absl::StrCat("a 'factor' of ", factor, " without a 'rope_type'"));
  if (IsNeutralScaling(type, factor, rope, config)) return;
  rope.Fail(absl::StrCat("rope type '", type, "' is not supported; 'default', 'linear' and 'llama3' are"));
}

// One dictionary of rotary settings: rope_scaling of transformers 4 (with the older key "type") or
// rope_parameters of transformers 5, which holds the base too.
void ReadRopeObject(const char* name, const Json& object, JsonFields& fields, ModelConfig& config) {
  if (!object.is_object()) return fields.Fail(absl::StrCat("'", name, "' should be an object"));
  JsonFields rope(object);
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) rope.Fail(absl::StrCat("settings of their own for ", Quoted(key)));
  }
  if (rope.Number({"partial_rotary_factor"}, 1) != 1) {
    rope.Fail("'partial_rotary_factor' other than 1 is not supported");
  }
  if (rope.Has("rope_theta")) {
    const double theta = rope.Number({"rope_theta"}, config.rope_theta);
    if (fields.Has("rope_theta") && theta != config.rope_theta) {
      rope.Fail(absl::StrCat("'rope_theta' is ", theta, " here but ", config.rope_theta, " outside"));
    }
    config.rope_theta = theta;
  }
  ReadScaling(rope, config);
  if (!rope.status().ok()) fields.Fail(absl::StrCat("'", name, "': ", std::string(rope.status().message())));
}

void ReadRope(const Json& object, JsonFields& fields, ModelConfig& config) {
  config.rope_theta = fields.Number({"rope_theta", "rotary_emb_base"}, 10000);
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (fields.Has(name)) ReadRopeObject(name, object[name], fields, config);
  }
}

// Mistral's and Qwen 2's classes know no keys for them.
void ReadBiases(JsonFields& fields, ModelConfig& config) {
  const bool llama = config.architecture == Architecture::kLlama;
  if (llama || config.architecture == Architecture::kQwen3)
    config.qkv_bias = config.attention_output_bias = fields.Bool({"attention_bias"}, false);
  if (config.architecture == Architecture::kQwen2) config.qkv_bias = true;
  if (llama) config.mlp_bias = fields.Bool({"mlp_bias"}, false);
}

// LLaMA and its relatives.
void ReadLlama(const Json& object, JsonFields& fields, ModelConfig& config) {
  config.hidden = Dimension(fields, {"hidden_size"}, std::nullopt, kHiddenMax);
  config.ffn = Dimension(fields, {"intermediate_size"}, std::nullopt, kFfnMax);
  config.layers = Dimension(fields, {"num_hidden_layers"}, std::nullopt, kLayersMax);
  config.heads = Dimension(fields, {"num_attention_heads"}, std::nullopt, kHeadsMax);
  // Only LLaMA's class takes as many KV heads as heads; the others' defaults fit one size alone.
  const bool llama = config.architecture == Architecture::kLlama;
  const auto kv_heads_default = llama ? std::optional<int64_t>(config.heads) : std::nullopt;
  config.kv_heads = Dimension(fields, {"num_key_value_heads"}, kv_heads_default, kHeadsMax);
  const Defaults& defaults = DefaultsOf(config.architecture);
  if (!fields.Has("head_dim") && !defaults.head_dim.has_value() && config.hidden % config.heads != 0) {
    fields.Fail(absl::StrCat("hidden_size ", config.hidden, " does not divide by ", config.heads,
                             " attention heads and no 'head_dim' is given"));
  }
  config.head_dim =
      Dimension(fields, {"head_dim"}, defaults.head_dim.value_or(std::max(1, config.hidden / config.heads)),
                kHeadDimMax);
  config.max_positions =
      Dimension(fields, {"max_position_embeddings", "max_sequence_length"}, defaults.positions, 1 << 30);
  config.norm_epsilon = fields.Number({"rms_norm_eps"}, 1e-6);
  ReadBiases(fields, config);
  config.head_norm = config.architecture == Architecture::kQwen3;
  config.tied_head = fields.Bool({"tie_word_embeddings"}, false);
  if (fields.Bool({"alibi"}, false)) fields.Fail("'alibi' is supported in BLOOM models alone");
  const std::string activation = fields.Text({"hidden_act"}, "silu");
  if (activation != "silu" && activation != "swish") {
    fields.Fail(absl::StrCat("'hidden_act' is '", activation, "'; such models with 'silu' are supported"));
  }
  ReadRope(object, fields, config);
}

void ReadBloom(JsonFields& fields, ModelConfig& config) {
  config.hidden = Dimension(fields, {"hidden_size", "n_embed"}, std::nullopt, kHiddenMax);
  config.layers = Dimension(fields, {"num_hidden_layers", "n_layer"}, std::nullopt, kLayersMax);
  config.heads = Dimension(fields, {"num_attention_heads", "n_head"}, std::nullopt, kHeadsMax);
  config.kv_heads = config.heads;
  if (config.hidden % config.heads != 0) {
    fields.Fail(absl::StrCat("hidden_size ", config.hidden, " does not divide by ", config.heads, " heads"));
  }
  config.head_dim = std::max(1, config.hidden / config.heads);
  config.ffn = Dimension(fields, {"n_inner"}, int64_t{4} * config.hidden, kFfnMax);
  if (config.ffn != int64_t{4} * config.hidden) {
    fields.Fail(absl::StrCat("'n_inner' is ", config.ffn, "; BLOOM's MLP is 4 * hidden_size wide"));
  }
  config.max_positions = Dimension(fields, {"seq_length", "max_position_embeddings"},
                                   DefaultsOf(config.architecture).positions, 1 << 30);
  config.norm_epsilon = fields.Number({"layer_norm_epsilon"}, 1e-5);
  config.residual_after_norm = fields.Bool({"apply_residual_connection_post_layernorm"}, false);
  config.tied_head = fields.Bool({"tie_word_embeddings"}, true);
  config.layer_norm = config.embedding_norm = config.alibi = true;
  config.gated_mlp = false;
  config.qkv_bias = config.attention_output_bias = config.mlp_bias = true;
  if (!fields.Bool({"alibi"}, true)) fields.Fail("'alibi' is false, but BLOOM has no other positions");
  if (fields.Bool({"skip_bias_add_qkv"}, false)) fields.Fail("'skip_bias_add_qkv' is not supported");
  const std::string activation = fields.Text({"hidden_act"}, "gelu");
  if (activation.rfind("gelu", 0) != 0) {
    fields.Fail(absl::StrCat("'hidden_act' is '", activation, "'; BLOOM models with 'gelu' are supported"));
  }
}

// The architecture's name, or what the file calls itself.
std::string FamilyOf(const Json& object, JsonFields& fields) {
  std::string type = fields.Text({"model_type"}, "");
  if (!type.empty()) return type;
  const std::string& name = object["architectures"].front().text();
  const std::string family =
      absl::AsciiStrToLower(absl::StripSuffix(absl::StripSuffix(name, "ForCausalLM"), "Model"));
  return FindArchitecture(family).has_value() ? family : name;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHuggingFaceConfig(const std::string& json_text) {
  BW_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json_text));
  JsonFields fields(object);
  ModelConfig config;
  const std::string family = FamilyOf(object, fields);
  BW_RETURN_IF_ERROR(fields.status());
  if (family.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'model_type' is missing; supported are ", ArchitectureNames()));
  }
  const std::optional<Architecture> architecture = FindArchitecture(family);
  if (!architecture) {
    return absl::UnimplementedError(
        absl::StrCat("models of type '", family, "' are not supported; supported are ", ArchitectureNames()));
  }
  config.architecture = *architecture;
  if (config.architecture == Architecture::kBloom) {
    ReadBloom(fields, config);
  } else {
    ReadLlama(object, fields, config);
  }
  config.vocab = Dimension(fields, {"vocab_size"}, std::nullopt, kVocabMax);
  ReadTokenIds(fields, config);
  const Defaults& defaults = DefaultsOf(config.architecture);
  if (!object.contains("bos_token_id")) config.bos = defaults.bos;
  if (!object.contains("eos_token_id") && defaults.eos.has_value()) config.eos = {*defaults.eos};
  ReadWindow(object, fields, config);
  RefuseForeignKeys(object, fields);
  BW_RETURN_IF_ERROR(fields.status());
  BW_RETURN_IF_ERROR(Validate(config));
  return config;
}

absl::Status MergeGenerationConfig(const std::string& json_text, ModelConfig& config) {
  BW_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json_text));
  JsonFields fields(object);
  ModelConfig generation;
  ReadTokenIds(fields, generation);
  BW_RETURN_IF_ERROR(fields.status());
  for (TokenId id : generation.eos) {
    if (std::find(config.eos.begin(), config.eos.end(), id) == config.eos.end()) config.eos.push_back(id);
  }
  if (!config.bos.has_value()) config.bos = generation.bos;
  return Validate(config);
}

}  // namespace bellwether
