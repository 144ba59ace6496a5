#include "model/config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/exact_math.h"
#include "common/status.h"
#include "model/option_names.h"

namespace bellwether {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr size_t kEndingTokensMax = 64;

absl::Status InRange(const char* name, int64_t value, int64_t least, int64_t most) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; ", least, " to ", most, " is possible"));
}

absl::Status ValidateRope(const ModelConfig& config) {
  if (config.alibi && config.head_norm)
    return absl::InvalidArgumentError("normalised heads without rotary embeddings are not supported");
  if (config.alibi) return absl::OkStatus();
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", config.head_dim, " is odd, which rotary embeddings cannot pair"));
  }
  if (!(config.rope_theta >= 1 && config.rope_theta <= 1e12)) {
    return absl::InvalidArgumentError(absl::StrCat("rope_theta ", config.rope_theta, " is not in 1 to 1e12"));
  }
  if (!config.rope_factors.empty()) {
    if (config.rope_factors.size() != static_cast<size_t>(config.head_dim / 2)) {
      return absl::InvalidArgumentError(absl::StrCat(config.rope_factors.size(), " rope factors for ",
                                                     config.head_dim / 2, " pairs of a head"));
    }
    for (float factor : config.rope_factors) {
      if (!(factor > 0 && factor <= 1e6f)) {
        return absl::InvalidArgumentError(absl::StrCat("rope factor ", factor, " is not in 0 to 1e6"));
      }
    }
  }
  if (!config.rope_scaling.has_value()) return absl::OkStatus();
  const Llama3RopeScaling& scaling = *config.rope_scaling;
  if (!(scaling.factor >= 1 && scaling.factor <= 1e6) ||
      !(scaling.low_frequency_factor > 0 && scaling.high_frequency_factor > scaling.low_frequency_factor) ||
      !(scaling.high_frequency_factor <= 1e6) ||
      !(scaling.original_max_positions >= 1 && scaling.original_max_positions <= 1e9)) {
    return absl::InvalidArgumentError(
        absl::StrCat("llama3 rope scaling with factor ", scaling.factor, ", frequency factors ",
                     scaling.low_frequency_factor, " to ", scaling.high_frequency_factor, ", ",
                     scaling.original_max_positions, " original positions makes no sense"));
  }
  return absl::OkStatus();
}

absl::Status ValidateTokens(const ModelConfig& config) {
  if (config.eos.size() > kEndingTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.eos.size(), " end-of-sequence ids; at most ", kEndingTokensMax, " are possible"));
  }
  // Ids may exceed the embedding's rows (such a token is never sampled), but not the limit.
  for (TokenId id : config.eos) BW_RETURN_IF_ERROR(InRange("end-of-sequence id", id, 0, kVocabMax));
  if (config.bos.has_value()) BW_RETURN_IF_ERROR(InRange("bos id", *config.bos, 0, kVocabMax));
  return absl::OkStatus();
}

// Every number with all its digits, so that different numbers never look the same.
std::string Digits(double value) { return absl::StrFormat("%.17g", value); }

// One of Hugging Face's fp32 steps: wave lengths longer than the trained context are stretched by `factor`,
// short ones are left alone, those between are blended. Every operation is rounded to fp32 in the order
// PyTorch does it (a number divided by a tensor is its reciprocal times the number).
float StretchLikeLlama3(float frequency, const Llama3RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_frequency_factor);
  const auto original = static_cast<float>(scaling.original_max_positions);
  const auto span = static_cast<float>(scaling.high_frequency_factor - scaling.low_frequency_factor);
  const auto longest = static_cast<float>(scaling.original_max_positions / scaling.low_frequency_factor);
  const auto shortest = static_cast<float>(scaling.original_max_positions / scaling.high_frequency_factor);

  const float wave_length = (1.0f / frequency) * static_cast<float>(kTwoPi);
  if (wave_length > longest) return frequency / factor;
  if (wave_length < shortest) return frequency;
  const float smooth = ((1.0f / wave_length) * original - low) / span;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

absl::Status Validate(const ModelConfig& config) {
  BW_RETURN_IF_ERROR(InRange("layers", config.layers, 1, kLayersMax));
  BW_RETURN_IF_ERROR(InRange("hidden", config.hidden, 1, kHiddenMax));
  BW_RETURN_IF_ERROR(InRange("heads", config.heads, 1, kHeadsMax));
  BW_RETURN_IF_ERROR(InRange("kv_heads", config.kv_heads, 1, config.heads));
  BW_RETURN_IF_ERROR(InRange("head_dim", config.head_dim, 1, kHeadDimMax));
  BW_RETURN_IF_ERROR(InRange("ffn", config.ffn, 1, kFfnMax));
  BW_RETURN_IF_ERROR(InRange("vocab", config.vocab, 1, kVocabMax));
  BW_RETURN_IF_ERROR(InRange("max_positions", config.max_positions, 1, 1 << 30));
  if (config.heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.heads, " heads cannot share ", config.kv_heads, " KV heads evenly"));
  }
  if (!(config.norm_epsilon > 0 && config.norm_epsilon < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("norm epsilon ", config.norm_epsilon, " is not in 0 to 1"));
  }
  BW_RETURN_IF_ERROR(ValidateRope(config));
  return ValidateTokens(config);
}

std::string CanonicalText(const ModelConfig& config) {
  std::string text(Name(config.architecture));
  absl::StrAppend(&text, " layers=", config.layers, " hidden=", config.hidden, " heads=", config.heads,
                  " kv_heads=", config.kv_heads, " head_dim=", config.head_dim, " ffn=", config.ffn);
  absl::StrAppend(&text, " vocab=", config.vocab, " max_positions=", config.max_positions,
                  " layer_norm=", config.layer_norm, " norm_epsilon=", Digits(config.norm_epsilon),
                  " embedding_norm=", config.embedding_norm, " alibi=", config.alibi,
                  " rope_theta=", Digits(config.rope_theta));
  if (config.rope_scaling.has_value()) {
    const Llama3RopeScaling& scaling = *config.rope_scaling;
    absl::StrAppend(&text, " rope_scaling=", Digits(scaling.factor), "/",
                    Digits(scaling.low_frequency_factor), "/", Digits(scaling.high_frequency_factor), "/",
                    Digits(scaling.original_max_positions));
  }
  if (!config.rope_factors.empty()) {
    absl::StrAppend(&text,
                    " rope_factors=", absl::StrJoin(config.rope_factors, "/", [](std::string* out, float f) {
                      out->append(Digits(f));
                    }));
  }
  absl::StrAppend(&text, " gated_mlp=", config.gated_mlp, " qkv_bias=", config.qkv_bias,
                  " attention_output_bias=", config.attention_output_bias, " mlp_bias=", config.mlp_bias);
  if (config.head_norm) absl::StrAppend(&text, " head_norm=1");
  absl::StrAppend(&text, " residual_after_norm=", config.residual_after_norm, " tied_head=", config.tied_head,
                  " bos=", config.bos.has_value() ? absl::StrCat(*config.bos) : "none",
                  " eos=", absl::StrJoin(config.eos, ","));
  return text;
}

// Hugging Face's values: the base is rounded to fp32, and so is each power of it. Heads beyond the last power
// of two take the odd powers of the finer base.
std::vector<float> AlibiSlopes(int heads) {
  BW_CHECK(heads >= 1);
  int power = 1;
  while (power * 2 <= heads) power *= 2;
  const auto base_of = [](int count) {
    return static_cast<double>(static_cast<float>(Pow(2.0, -8.0 / count)));
  };
  std::vector<float> slopes;
  slopes.reserve(heads);
  const double base = base_of(power);
  for (int i = 1; i <= power; ++i) slopes.push_back(static_cast<float>(Pow(base, i)));
  const double finer_base = base_of(2 * power);
  for (int i = 0; power + i < heads; ++i) slopes.push_back(static_cast<float>(Pow(finer_base, 2 * i + 1)));
  return slopes;
}

std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  const int pairs = config.head_dim / 2;
  const auto theta = static_cast<double>(static_cast<float>(config.rope_theta));
  std::vector<float> frequencies(pairs);
  for (int i = 0; i < pairs; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0f / static_cast<float>(Pow(theta, exponent));
    if (config.rope_scaling.has_value()) {
      frequencies[i] = StretchLikeLlama3(frequencies[i], *config.rope_scaling);
    }
    if (!config.rope_factors.empty()) frequencies[i] /= config.rope_factors[i];
  }
  return frequencies;
}

}  // namespace bellwether
