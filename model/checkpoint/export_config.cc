#include "model/checkpoint/export_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/quantization_settings.h"
#include "model/json_object.h"
#include "model/option_names.h"

namespace bellwether {
namespace {

// One number, a list of several, or null.
Json Ids(const std::vector<TokenId>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? Json(ids[0]) : Json(ids);
}

Json Llama3Json(const Llama3RopeScaling& scaling) {
  return Json::object(
      {{"rope_type", "llama3"},
       {"factor", scaling.factor},
       {"low_freq_factor", scaling.low_frequency_factor},
       {"high_freq_factor", scaling.high_frequency_factor},
       {"original_max_position_embeddings", static_cast<int64_t>(scaling.original_max_positions)}});
}

bool AreClose(const std::vector<float>& a, const std::vector<float>& b) {
  constexpr float kTolerance = 1e-5f;
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return std::abs(x - y) <= kTolerance * std::abs(x); });
}

// GGUF has the result of Llama 3's scaling alone: this finds the scaling, of those with its usual bounds.
std::optional<Llama3RopeScaling> FindLlama3(const ModelConfig& config) {
  constexpr double kPositionsMin = 256, kPositionsMax = 1 << 17;
  const std::vector<float> wanted = RopeInverseFrequencies(config);
  ModelConfig tried = config;
  tried.rope_factors.clear();
  for (double positions = kPositionsMin; positions <= kPositionsMax; positions *= 2) {
    tried.rope_scaling = Llama3RopeScaling{.factor = std::round(config.rope_factors.back()),
                                           .original_max_positions = positions};
    if (AreClose(wanted, RopeInverseFrequencies(tried))) return tried.rope_scaling;
  }
  return std::nullopt;
}

// Null where frequencies are not scaled.
absl::StatusOr<Json> RopeScaling(const ModelConfig& config) {
  if (config.rope_scaling.has_value()) return Llama3Json(*config.rope_scaling);
  const std::vector<float>& factors = config.rope_factors;
  if (factors.empty()) return Json();
  if (std::all_of(factors.begin(), factors.end(), [&](float factor) { return factor == factors[0]; }))
    return Json::object({{"rope_type", "linear"}, {"factor", factors[0]}});
  if (const auto scaling = FindLlama3(config); scaling.has_value()) return Llama3Json(*scaling);
  return absl::UnimplementedError("its scaled frequencies (rope_freqs) are none that config.json can say");
}

absl::StatusOr<Json> MakeLlama(const ModelConfig& config) {
  const bool llama = config.architecture == Architecture::kLlama;
  const bool qwen2 = config.architecture == Architecture::kQwen2;
  if ((qwen2 && !config.qkv_bias) || (config.mlp_bias && !llama)) {
    return absl::UnimplementedError("it has other biases than its family, which config.json has no word for");
  }
  if (config.attention_output_bias != (config.qkv_bias && !qwen2)) {
    return absl::UnimplementedError(
        "it has biases for queries, keys and values but not for what attention gives, or the other way "
        "round; config.json has one word for both (attention_bias)");
  }
  const char* class_name = llama ? "LlamaForCausalLM" : qwen2 ? "Qwen2ForCausalLM" : "Qwen3ForCausalLM";
  Json json = Json::object({{"architectures", Json::array({class_name})},
                            {"model_type", std::string(Name(config.architecture))},
                            {"hidden_act", "silu"},
                            {"hidden_size", config.hidden},
                            {"intermediate_size", config.ffn},
                            {"num_hidden_layers", config.layers},
                            {"num_attention_heads", config.heads},
                            {"num_key_value_heads", config.kv_heads},
                            {"head_dim", config.head_dim},
                            {"max_position_embeddings", config.max_positions},
                            {"rms_norm_eps", config.norm_epsilon},
                            {"rope_theta", config.rope_theta}});
  if (!qwen2) json["attention_bias"] = config.qkv_bias;
  if (llama) json["mlp_bias"] = config.mlp_bias;
  BW_ASSIGN_OR_RETURN(Json scaling, RopeScaling(config));
  if (!scaling.is_null()) json["rope_scaling"] = std::move(scaling);
  return json;
}

Json MakeBloom(const ModelConfig& config) {
  return Json::object({{"architectures", Json::array({"BloomForCausalLM"})},
                       {"model_type", "bloom"},
                       {"hidden_size", config.hidden},
                       {"n_layer", config.layers},
                       {"n_head", config.heads},
                       {"seq_length", config.max_positions},
                       {"layer_norm_epsilon", config.norm_epsilon},
                       {"apply_residual_connection_post_layernorm", config.residual_after_norm}});
}

// Of a source that has none.
absl::StatusOr<Json> MakeConfig(const ModelConfig& config) {
  Json json;
  if (config.architecture == Architecture::kBloom) {
    json = MakeBloom(config);
  } else {
    BW_ASSIGN_OR_RETURN(json, MakeLlama(config));
  }
  json["bos_token_id"] = config.bos.has_value() ? Json(*config.bos) : Json();
  json["eos_token_id"] = Ids(config.eos);
  return json;
}

// For files without settings, as BELLE's .pt, in the words of GPTQ's tools. Null if no words fit all
// matrices: each still goes by its shapes.
Json MakeSettings(const CheckpointContents& contents) {
  std::optional<int> bits;
  std::optional<int64_t> group;  // of matrices that have several
  int64_t longest_whole = 0;     // inputs of those that have one
  bool act_order = false, alike = true;
  for (const auto& [key, tensor] : contents.tensors) {
    if (tensor.linear == nullptr) continue;
    const QuantizedLinear& linear = *tensor.linear;
    alike &= bits.value_or(linear.bits) == linear.bits;
    bits = linear.bits;
    act_order |= !linear.group_index.empty();
    if (linear.group >= linear.inputs) {
      longest_whole = std::max(longest_whole, linear.inputs);
    } else {
      alike &= group.value_or(linear.group) == linear.group;
      group = linear.group;
    }
  }
  if (!bits.has_value() || !alike || longest_whole > group.value_or(longest_whole)) return nullptr;
  return Json::object({{"bits", *bits},
                       {"group_size", group.value_or(-1)},
                       {"desc_act", act_order},
                       {"sym", false},
                       {"quant_method", "gptq"},
                       {"checkpoint_format", "gptq"}});
}

// What the source's tool says, in the keys that are usual today.
absl::StatusOr<Json> OutputSettings(const CheckpointContents& contents) {
  BW_ASSIGN_OR_RETURN(QuantizationSettings settings, ReadQuantizationSettings(contents.config_directory));
  if (settings.object.is_null()) return MakeSettings(contents);
  BW_ASSIGN_OR_RETURN(const QuantizationConfig config, ParseQuantizationConfig(settings.object));
  const bool awq = config.method == QuantizationConfig::Method::kAwq;
  settings.object["quant_method"] = awq ? "awq" : "gptq";
  settings.object["bits"] = *config.bits;
  settings.object["group_size"] = *config.group;
  return settings.object;
}

// The source's; a new one where it has none.
absl::StatusOr<Json> SourceConfig(const CheckpointContents& contents) {
  if (contents.config_directory.empty()) return MakeConfig(contents.config);
  BW_ASSIGN_OR_RETURN(const std::string text,
                      ReadSmallFile(contents.config_directory + "/config.json", kJsonBytesMax));
  return ParseJsonObject(text);
}

Json Without(const char* name, const Json& object) {
  Json::Object members = object.items();
  std::erase_if(members, [name](const Json::Member& member) { return member.first == name; });
  return members;
}

bool HoldsLinears(const CheckpointContents& contents) {
  return std::any_of(contents.tensors.begin(), contents.tensors.end(),
                     [](const auto& entry) { return entry.second.linear != nullptr; });
}

}  // namespace

absl::StatusOr<Json> OutputConfig(const CheckpointContents& contents, bool dequantized) {
  const ModelConfig& config = contents.config;
  BW_ASSIGN_OR_RETURN(const Json source, SourceConfig(contents));
  Json json = Without("quantization_config", source);
  if (!dequantized && HoldsLinears(contents)) {
    BW_ASSIGN_OR_RETURN(Json settings, OutputSettings(contents));
    if (!settings.is_null()) json["quantization_config"] = std::move(settings);
  }
  // Parts of quantised matrices are written as they are, and so is what the source says of its type.
  const StoredTensor& query = contents.tensors.at(TensorKey{TensorRole::kQuery});
  const WeightFormat format = query.info.format.format;
  if (dequantized || query.linear == nullptr) {
    json[json.contains("dtype") ? "dtype" : "torch_dtype"] = format == WeightFormat::kF32    ? "float32"
                                                             : format == WeightFormat::kBF16 ? "bfloat16"
                                                                                             : "float16";
  }
  json["vocab_size"] = config.vocab;
  json["tie_word_embeddings"] = config.tied_head;
  return json;
}

}  // namespace bellwether
