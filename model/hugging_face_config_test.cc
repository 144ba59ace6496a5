#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "model/config.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// BELLE-LLaMA-13B as published: no max_position_embeddings, num_key_value_heads or rope_theta.
constexpr char kBelle13B[] = R"({
  "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 13824, "model_type": "llama",
  "num_attention_heads": 40, "num_hidden_layers": 40, "pad_token_id": 0, "rms_norm_eps": 1e-06,
  "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.28.0.dev0",
  "use_cache": true, "vocab_size": 32000})";

// A small LLaMA with `extra` fields ("\"a\": 1, ") in front.
std::string Llama(const std::string& extra) {
  return absl::StrCat("{", extra,
                      R"("model_type": "llama", "hidden_size": 64, "intermediate_size": 100,)"
                      R"("num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 160})");
}

std::string Bloom(const std::string& extra) {
  return absl::StrCat("{", extra,
                      R"("model_type": "bloom", "n_embed": 60, "n_head": 5, "n_layer": 3,)"
                      R"("vocab_size": 100, "eos_token_id": 2})");
}

std::string Refusal(const std::string& text) {
  return std::string(ParseHuggingFaceConfig(text).status().message());
}

TEST(HuggingFaceConfigTest, LlamaOf2023TakesDefaults) {
  absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(kBelle13B);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->hidden, 5120);
  EXPECT_EQ(config->ffn, 13824);
  EXPECT_EQ(config->layers, 40);
  EXPECT_EQ(config->heads, 40);
  EXPECT_EQ(config->kv_heads, 40);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->vocab, 32000);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_EQ(config->rope_theta, 10000);
  EXPECT_EQ(config->norm_epsilon, 1e-6);
  EXPECT_FALSE(config->tied_head || config->qkv_bias || config->mlp_bias || config->alibi);
  EXPECT_EQ(config->bos, 1);
  EXPECT_THAT(config->eos, ElementsAre(2));
}

TEST(HuggingFaceConfigTest, LlamaOptions) {
  absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(
      Llama(R"("num_key_value_heads": 2, "head_dim": 32, "attention_bias": true, "mlp_bias": true,
              "tie_word_embeddings": true, "max_sequence_length": 1024, "eos_token_id": [2, 7], "bos_token_id": null,
              "rms_norm_eps": 1e-5, "sliding_window": null, "pretraining_tp": 2, "quantization_config": null,)"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_TRUE(config->qkv_bias && config->attention_output_bias && config->mlp_bias && config->tied_head);
  EXPECT_EQ(config->max_positions, 1024);
  EXPECT_THAT(config->eos, ElementsAre(2, 7));
  EXPECT_FALSE(config->bos.has_value());
}

TEST(HuggingFaceConfigTest, RopeInBothSpellings) {
  const Llama3RopeScaling expected{8, 1, 4, 8192};
  for (
      const char* spelling :
      {R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},)",
       R"("rope_theta": 500000, "rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1,
            "high_freq_factor": 4, "original_max_position_embeddings": 8192},)",
       R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "rope_scaling": null,)"}) {
    absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(Llama(spelling));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope_theta, 500000);
    EXPECT_EQ(config->rope_scaling, expected);
  }
  absl::StatusOr<ModelConfig> plain =
      ParseHuggingFaceConfig(Llama(R"("rope_parameters": {"rope_type": "default", "rope_theta": 1e6},)"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->rope_theta, 1e6);
  EXPECT_FALSE(plain->rope_scaling.has_value());
}

TEST(HuggingFaceConfigTest, OtherRopeScalingsAreRefusedByName) {
  for (const char* type : {"dynamic", "yarn", "longrope", "su", "mrope"}) {
    for (const char* factor : {R"(, "factor": 2.0)", ""})
      EXPECT_THAT(Refusal(Llama(absl::StrCat(R"("rope_scaling": {"type": ")", type, "\"", factor, "},"))),
                  HasSubstr(absl::StrCat("rope type '", type, "' is not supported")));
  }
  EXPECT_THAT(Refusal(Llama(R"("rope_scaling": {"rope_type": "llama3", "factor": 8},)")),
              HasSubstr("'low_freq_factor' is missing"));
  EXPECT_THAT(Refusal(Llama(R"("rope_theta": 10000, "rope_parameters": {"rope_theta": 20000},)")),
              HasSubstr("'rope_theta' is 20000 here but 10000 outside"));
  EXPECT_THAT(Refusal(Llama(R"("rope_parameters": {"partial_rotary_factor": 0.5},)")),
              HasSubstr("partial_rotary_factor"));
}

// Neither order of two dictionaries lets one hide the other.
TEST(HuggingFaceConfigTest, TwoScalingsThatDifferAreRefused) {
  constexpr char kLlama3[] = R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})";
  constexpr char kLinear[] = R"({"rope_type": "linear", "factor": 2.0})";
  const auto both = [](const char* scaling, const char* parameters) {
    return Refusal(
        Llama(absl::StrCat(R"("rope_scaling": )", scaling, R"(, "rope_parameters": )", parameters, ",")));
  };
  EXPECT_EQ(both(kLlama3, kLlama3), "");
  EXPECT_THAT(both(kLlama3, kLinear), HasSubstr("contradicts the other rotary settings"));
  EXPECT_THAT(both(kLinear, kLlama3), HasSubstr("contradicts the other rotary settings"));
  EXPECT_THAT(both(kLinear, kLinear), HasSubstr("contradicts the other rotary settings"));
  EXPECT_THAT(Refusal(Llama(R"("rope_scaling": {"rope_type": "linear"},)")),
              HasSubstr("'factor' is missing"));
  EXPECT_THAT(Refusal(Llama(R"("rope_scaling": {"rope_type": "linear", "factor": -1.0},)")),
              HasSubstr("rope factor -1"));
}

TEST(HuggingFaceConfigTest, KeysThatChangeTheMathsAreRefusedByName) {
  for (const char* key : {R"("sliding_window": 4096)", R"("hidden_act": "relu")", R"("hidden_act": "gelu")",
                          R"("partial_rotary_factor": 0.5)", R"("attn_logit_softcapping": 50.0)",
                          R"("num_local_experts": 8)", R"("quantization_config": {"quant_method": "fp8"})",
                          R"("layer_types": ["full_attention", "sliding_attention"])",
                          R"("logits_scaling": 8.0)", R"("qk_norm": true)"}) {
    const std::string name = std::string(key).substr(1, std::string(key).find('"', 1) - 1);
    EXPECT_THAT(Refusal(Llama(absl::StrCat(key, ","))), HasSubstr(absl::StrCat("'", name, "'"))) << key;
  }
  EXPECT_TRUE(ParseHuggingFaceConfig(Llama(R"("sliding_window": 4096, "use_sliding_window": false,)")).ok());
}

// As published: Qwen2.5-7B and Qwen3-8B, smaller.
TEST(HuggingFaceConfigTest, QwenHasItsOwnBiasesAndNorms) {
  constexpr char kQwen2[] = R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
      "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896,
      "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
      "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
      "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
      "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.43.1",
      "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";
  const absl::StatusOr<ModelConfig> qwen2 = ParseHuggingFaceConfig(kQwen2);
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_EQ(qwen2->architecture, Architecture::kQwen2);
  EXPECT_TRUE(qwen2->qkv_bias && qwen2->tied_head && qwen2->gated_mlp);
  EXPECT_FALSE(qwen2->attention_output_bias || qwen2->mlp_bias || qwen2->head_norm);
  EXPECT_EQ(qwen2->head_dim, 64);
  EXPECT_EQ(qwen2->max_positions, 32768);
  EXPECT_EQ(qwen2->rope_theta, 1e6);
  EXPECT_THAT(qwen2->eos, ::testing::ElementsAre(151645));

  constexpr char kQwen3[] = R"({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
      "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128,
      "hidden_act": "silu", "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 9728,
      "max_position_embeddings": 40960, "max_window_layers": 36, "num_attention_heads": 32,
      "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
      "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
      "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";
  const absl::StatusOr<ModelConfig> qwen3 = ParseHuggingFaceConfig(kQwen3);  // told by its class alone
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_EQ(qwen3->architecture, Architecture::kQwen3);
  EXPECT_TRUE(qwen3->head_norm);
  EXPECT_FALSE(qwen3->qkv_bias || qwen3->attention_output_bias);
  EXPECT_EQ(qwen3->head_dim, 128);
  EXPECT_EQ(qwen3->max_positions, 40960);
}

TEST(HuggingFaceConfigTest, BloomWithItsAliases) {
  absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(Bloom(R"("seq_length": 512,)"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kBloom);
  EXPECT_EQ(config->hidden, 60);
  EXPECT_EQ(config->heads, 5);
  EXPECT_EQ(config->kv_heads, 5);
  EXPECT_EQ(config->head_dim, 12);
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->ffn, 240);
  EXPECT_EQ(config->max_positions, 512);
  EXPECT_EQ(config->norm_epsilon, 1e-5);
  EXPECT_TRUE(config->layer_norm && config->embedding_norm && config->alibi && config->tied_head);
  EXPECT_TRUE(config->qkv_bias && config->attention_output_bias && config->mlp_bias);
  EXPECT_FALSE(config->gated_mlp || config->residual_after_norm);

  absl::StatusOr<ModelConfig> mixed = ParseHuggingFaceConfig(
      Bloom(R"("hidden_size": 60, "n_inner": null, "apply_residual_connection_post_layernorm": true,)"));
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  EXPECT_TRUE(mixed->residual_after_norm);
  EXPECT_EQ(mixed->max_positions, 2048);

  EXPECT_EQ(Refusal(Bloom(R"("hidden_size": 64,)")), "'hidden_size' is 64 but 'n_embed' is 60");
  EXPECT_THAT(Refusal(Bloom(R"("hidden_act": "silu",)")), HasSubstr("'hidden_act' is 'silu'"));
  EXPECT_THAT(Refusal(Bloom(R"("n_inner": 128,)")), HasSubstr("'n_inner' is 128"));
  EXPECT_THAT(Refusal(Bloom(R"("skip_bias_add_qkv": true,)")), HasSubstr("skip_bias_add_qkv"));
}

TEST(HuggingFaceConfigTest, TextThatIsNoConfigIsRefused) {
  EXPECT_THAT(Refusal(""), HasSubstr("not valid JSON"));
  EXPECT_EQ(Refusal("[1]"), "not a JSON object");
  EXPECT_THAT(Refusal("{\"model_type\": \"ll\xffma\"}"), HasSubstr("column 19: not UTF-8"));
  EXPECT_THAT(Refusal("{}"), HasSubstr("'model_type' is missing"));
  EXPECT_THAT(Refusal(R"({"model_type": "gpt2"})"), HasSubstr("'gpt2' are not supported"));
  EXPECT_THAT(Refusal(R"({"architectures": ["MixtralForCausalLM"]})"), HasSubstr("'MixtralForCausalLM'"));
  EXPECT_THAT(Refusal(R"({"model_type": 3})"), HasSubstr("'model_type' should be a string, not 3"));
  EXPECT_EQ(Refusal(R"({"model_type": "llama"})"), "'hidden_size' is missing");
  EXPECT_EQ(Refusal(Llama(R"("head_dim": "x",)")), "'head_dim' should be an integer, not \"x\"");
  EXPECT_EQ(Refusal(Llama(R"("head_dim": 16.0,)")), "'head_dim' should be an integer, not 16.0");
  EXPECT_EQ(Refusal(Llama(R"("head_dim": 18446744073709551615,)")),
            "'head_dim' should be an integer, not 18446744073709551615");
  EXPECT_EQ(Refusal(Llama(R"("head_dim": 4096,)")), "'head_dim' is 4096; 1 to 512 is possible");
  EXPECT_EQ(Refusal(Llama(R"("num_key_value_heads": 3,)")), "4 heads cannot share 3 KV heads evenly");
  EXPECT_EQ(Refusal(Llama(R"("eos_token_id": "</s>",)")),
            "'eos_token_id' should be an integer or a list of integers, not \"</s>\"");
  EXPECT_THAT(Refusal("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"),
              HasSubstr("JSON nested deeper than 64 levels"));
}

TEST(GenerationConfigTest, AddsEndingTokens) {
  ModelConfig config = *ParseHuggingFaceConfig(kBelle13B);
  EXPECT_TRUE(MergeGenerationConfig(R"({"eos_token_id": [2, 5, 6], "bos_token_id": 9})", config).ok());
  EXPECT_THAT(config.eos, ElementsAre(2, 5, 6));
  EXPECT_EQ(config.bos, 1);
  EXPECT_FALSE(MergeGenerationConfig(R"({"eos_token_id": "x"})", config).ok());
}

}  // namespace
}  // namespace bellwether
