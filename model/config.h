#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace bellwether {

// Whose names and defaults a checkpoint's files have. All but BLOOM are relatives of LLaMA.
enum class Architecture { kLlama, kBloom, kMistral, kQwen2, kQwen3 };

// RoPE frequencies stretched the way Llama 3.1 does it (docs/formats.md has the formula).
struct Llama3RopeScaling {
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_max_positions = 8192;
  friend bool operator==(const Llama3RopeScaling&, const Llama3RopeScaling&) = default;
};

// Everything about a model that changes the maths, whatever file it came from. All families share one decoder
// layer that is steered by these fields.
struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;  // divides heads
  int32_t head_dim = 0;  // even with RoPE; not always hidden / heads
  int32_t ffn = 0;       // inner width of the MLP
  int32_t vocab = 0;     // rows of the embedding tensor, which config files may overstate
  int32_t max_positions = 0;

  bool layer_norm = false;  // LayerNorm with bias (BLOOM); else RMSNorm
  double norm_epsilon = 1e-6;
  bool embedding_norm = false;  // LayerNorm on the embedding (BLOOM)
  bool alibi = false;           // ALiBi; else RoPE
  double rope_theta = 10000;
  std::optional<Llama3RopeScaling> rope_scaling;
  // head_dim / 2 divisors of the inverse frequencies, or empty: a linear scaling, or how GGUF stores one that
  // it has applied.
  std::vector<float> rope_factors;
  bool gated_mlp = true;  // down(silu(gate(x)) * up(x)); else down(gelu(up(x)))
  bool qkv_bias = false;
  bool head_norm = false;  // RMSNorm on each query and key head before RoPE (Qwen 3)
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool residual_after_norm = false;  // the residual is the norm's output (BLOOM's option)
  bool tied_head = false;            // lm_head is the embedding

  std::optional<TokenId> bos;
  std::vector<TokenId> eos;  // any of these ends a generation

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Limits on what a file may claim, so that a damaged one is refused before memory is asked for.
inline constexpr int32_t kLayersMax = 1024;
inline constexpr int32_t kHiddenMax = 65536;
inline constexpr int32_t kHeadsMax = 1024;
inline constexpr int32_t kHeadDimMax = 512;
inline constexpr int32_t kFfnMax = 1 << 20;
inline constexpr int32_t kVocabMax = 1 << 21;

// InvalidArgument, naming the field, if the numbers contradict each other or a limit.
absl::Status Validate(const ModelConfig& config);

// From the text of a Hugging Face config.json (aliases, defaults and missing keys of the families). A key
// that would change the maths in a way that is not supported is refused by name. `vocab` is what the file
// says; the checkpoint corrects it from the embedding tensor.
absl::StatusOr<ModelConfig> ParseHuggingFaceConfig(const std::string& json_text);
// Adds the end-of-sequence ids of a generation_config.json, which for chat models names more than config.json
// does.
absl::Status MergeGenerationConfig(const std::string& json_text, ModelConfig& config);

// One line of text that two equal configs, and only they, share: part of the model id.
std::string CanonicalText(const ModelConfig& config);

// ALiBi slope of each query head, for any head count (Press et al., arXiv:2108.12409).
std::vector<float> AlibiSlopes(int heads);
// RoPE: inverse frequency of each of head_dim / 2 pairs, scaled as the config says, rounded to fp32 as
// Hugging Face does.
std::vector<float> RopeInverseFrequencies(const ModelConfig& config);

}  // namespace bellwether
