#include "model/checkpoint/meta_params.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr TokenId kLlamaBos = 1, kLlamaEos = 2;
// Of tiktoken's vocabulary, with 128,000 pieces of text.
constexpr TokenId kLlama3Bos = 128000, kLlama3EndOfText = 128001, kLlama3EndOfMessage = 128008,
                  kLlama3EndOfTurn = 128009;
constexpr int32_t kLlama3Vocabulary = 128256;

constexpr double kLlama3Theta = 500000, kCodeLlamaTheta = 1000000;
constexpr int32_t kLlama31Positions = 131072, kCodeLlamaPositions = 16384, kLlama3Positions = 8192,
                  kLlama2Positions = 4096, kLlama1Positions = 2048;
constexpr double kLlama1Epsilon = 1e-6;

// The files of Llama 3.1 and 3.2 say "scaled" and not how much: the small models of 3.2 by 32, others by 8.
constexpr int32_t kLeastHiddenOfLlama31 = 4096;
constexpr double kLlama31Factor = 8, kLlama32Factor = 32;

// Without an effect on the maths, or read below.
constexpr std::string_view kKnown[] = {
    "dim",        "n_layers",        "n_heads",          "n_kv_heads",          "head_dim",
    "hidden_dim", "multiple_of",     "norm_eps",         "ffn_dim_multiplier",  "vocab_size",
    "rope_theta", "use_scaled_rope", "max_seq_len",      "rope_scaling_factor", "rope_high_freq_factor",
    "model",      "max_batch_size",  "n_special_tokens",
};

void RefuseUnknownKeys(const Json& object, JsonFields& fields) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown) || value.is_null()) continue;
    fields.Fail(
        absl::StrCat(Quoted(key), " is not known; it may change the maths, so it is not passed over"));
  }
}

int32_t Dimension(JsonFields& fields, const char* name, std::optional<int64_t> absent, int64_t most) {
  const int64_t value = fields.Integer({name}, absent);
  if (fields.status().ok() && (value < 1 || value > most)) {
    fields.Fail(absl::StrCat("'", name, "' is ", value, "; 1 to ", most, " is possible"));
  }
  return fields.status().ok() ? static_cast<int32_t>(value) : 1;
}

// Two thirds of four times the width, stretched and rounded up.
int32_t MlpWidth(int32_t hidden, JsonFields& fields) {
  if (fields.Has("hidden_dim")) return Dimension(fields, "hidden_dim", std::nullopt, kFfnMax);
  const int64_t multiple = Dimension(fields, "multiple_of", 256, kFfnMax);
  const double stretch = fields.Number({"ffn_dim_multiplier"}, 1);
  if (!(stretch > 0 && stretch <= 64)) fields.Fail("'ffn_dim_multiplier' is out of range");
  if (!fields.status().ok()) return 1;
  const int64_t unstretched = int64_t{8} * hidden / 3;  // rounded down
  const auto width = static_cast<int64_t>(stretch * static_cast<double>(unstretched));
  const int64_t rounded = (width + multiple - 1) / multiple * multiple;
  if (rounded < 1 || rounded > kFfnMax) fields.Fail(absl::StrCat("the MLP would be ", rounded, " wide"));
  return static_cast<int32_t>(std::clamp<int64_t>(rounded, 1, kFfnMax));
}

void ReadRope(JsonFields& fields, MetaParams& params) {
  ModelConfig& config = params.config;
  config.rope_theta = fields.Number({"rope_theta"}, 10000);
  if (!(config.rope_theta > 0)) fields.Fail("'rope_theta' is not above 0");
  params.scaled_rope = fields.Bool({"use_scaled_rope"}, false);
  const double usual = config.hidden < kLeastHiddenOfLlama31 ? kLlama32Factor : kLlama31Factor;
  const double factor = fields.Number({"rope_scaling_factor"}, usual);
  const double high = fields.Number({"rope_high_freq_factor"}, 4);
  if (!params.scaled_rope) return;
  if (!(factor >= 1) || !(high > 1))
    fields.Fail("'rope_scaling_factor' or 'rope_high_freq_factor' is too small");
  config.rope_scaling = Llama3RopeScaling{.factor = factor, .high_frequency_factor = high};
}

// BOS and EOS follow from the vocabulary, as the files do not name them.
void SetTokenIds(bool llama3, ModelConfig& config) {
  config.bos = llama3 ? kLlama3Bos : kLlamaBos;
  config.eos = llama3 ? std::vector<TokenId>{kLlama3EndOfText, kLlama3EndOfMessage, kLlama3EndOfTurn}
                      : std::vector<TokenId>{kLlamaEos};
}

int32_t Positions(const MetaParams& params, bool rope_in_layers) {
  if (params.config.max_positions > 0) return params.config.max_positions;
  if (params.scaled_rope) return kLlama31Positions;
  if (params.config.rope_theta == kCodeLlamaTheta) return kCodeLlamaPositions;
  if (params.config.rope_theta == kLlama3Theta) return kLlama3Positions;
  return rope_in_layers || params.config.norm_epsilon == kLlama1Epsilon ? kLlama1Positions : kLlama2Positions;
}

}  // namespace

absl::StatusOr<MetaParams> ParseMetaParams(const std::string& json_text) {
  BW_ASSIGN_OR_RETURN(const Json whole, ParseJsonObject(json_text));
  const Json& object = whole["model"].is_object() ? whole["model"] : whole;
  JsonFields fields(object);
  RefuseUnknownKeys(object, fields);
  MetaParams params;
  ModelConfig& config = params.config;
  config.hidden = Dimension(fields, "dim", std::nullopt, kHiddenMax);
  config.layers = Dimension(fields, "n_layers", std::nullopt, kLayersMax);
  config.heads = Dimension(fields, "n_heads", std::nullopt, kHeadsMax);
  config.kv_heads = Dimension(fields, "n_kv_heads", config.heads, kHeadsMax);
  config.head_dim = Dimension(fields, "head_dim", std::max(1, config.hidden / config.heads), kHeadDimMax);
  config.ffn = MlpWidth(config.hidden, fields);
  config.norm_epsilon = fields.Number({"norm_eps"}, 1e-5);
  ReadRope(fields, params);
  if (fields.Has("max_seq_len"))
    config.max_positions = Dimension(fields, "max_seq_len", std::nullopt, int64_t{1} << 24);
  if (!fields.status().ok()) return fields.status();
  return params;
}

ModelConfig CompleteMetaConfig(const MetaParams& params, int32_t vocab, bool rope_in_layers) {
  ModelConfig config = params.config;
  config.vocab = vocab;
  config.max_positions = Positions(params, rope_in_layers);
  SetTokenIds(/*llama3=*/vocab == kLlama3Vocabulary, config);
  return config;
}

}  // namespace bellwether
