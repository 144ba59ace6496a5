#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/option_names.h"

// A GGUF file's metadata as a ModelConfig and a vocabulary.

namespace bellwether {
namespace {

constexpr double kBloomAlibiBias = 8;  // the exponent of ALiBi's slopes that model/config.h's have

// Reads the keys "<architecture>.<name>" and keeps the first error, so that callers check once.
class ArchitectureKeys {
 public:
  ArchitectureKeys(const GgufFile& gguf, const std::string& architecture)
      : gguf_(gguf), prefix_(architecture + ".") {}

  bool Has(const std::string& name) const { return gguf_.Has(prefix_ + name); }

  // Within 1 ... most; `absent` is the default, 0 if there is none.
  int32_t Dimension(const std::string& name, int64_t most, int64_t absent = 0) {
    const auto value = gguf_.Integer(prefix_ + name);
    if (!value.ok()) {
      status_.Update(value.status());
      return 1;
    }
    const int64_t number = value->value_or(absent);
    if (number < 1 || number > most) {
      Fail(name,
           value->has_value() ? absl::StrCat("is ", number, "; 1 to ", most, " is possible") : "is missing");
      return 1;
    }
    return static_cast<int32_t>(number);
  }
  double Number(const std::string& name, std::optional<double> absent) {
    const auto value = gguf_.Number(prefix_ + name);
    if (!value.ok()) {
      status_.Update(value.status());
      return absent.value_or(1);
    }
    if (!value->has_value() && !absent.has_value()) Fail(name, "is missing");
    return value->has_value() ? **value : absent.value_or(1);
  }
  std::string Text(const std::string& name) {
    auto value = gguf_.Text(prefix_ + name);
    status_.Update(value.status());
    return value.ok() ? *std::move(value) : "";
  }
  // Refuses a key that changes the maths unless it holds `neutral`.
  void RefuseUnless(const std::string& name, double neutral) {
    if (!Has(name)) return;
    const auto integer = gguf_.Integer(prefix_ + name);
    if (integer.ok() && static_cast<double>(**integer) == neutral) return;
    const auto number = gguf_.Number(prefix_ + name);
    if (number.ok() && **number == neutral) return;
    const auto flag = gguf_.Bool(prefix_ + name);
    if (flag.ok() && static_cast<double>(**flag) == neutral) return;
    Fail(name, "asks for something that is not supported");
  }
  void Fail(const std::string& name, const std::string& what) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat("'", prefix_, name, "' ", what)));
  }
  const absl::Status& status() const { return status_; }

 private:
  const GgufFile& gguf_;
  const std::string prefix_;
  absl::Status status_;
};

const BlockTensor* FindTensor(const GgufFile& gguf, const std::string& name) {
  const auto found = std::find_if(gguf.tensors().begin(), gguf.tensors().end(),
                                  [&](const BlockTensor& tensor) { return tensor.name == name; });
  return found == gguf.tensors().end() ? nullptr : &*found;
}

// Keys that change the maths wherever llama.cpp reads them, with the values that change nothing.
struct ForeignKey {
  const char* name;
  double neutral;
};
constexpr ForeignKey kForeignKeys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"expert_shared_count", 0},
    {"nextn_predict_layers", 0},
    {"use_parallel_residual", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"attention.sliding_window", 0},
    {"attention.clamp_kqv", 0},
    {"attention.scale", 0},
    {"attention.q_lora_rank", 0},
    {"attention.kv_lora_rank", 0},
    {"attention.causal", 1},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"rope.scaling.attn_factor", 1},
    {"rope.scaling.yarn_log_multiplier", 0},
};

// The factor of a linear scaling. llama.cpp takes "linear" where no type stands, and the factor's old key
// where the new one is absent; 0 is none.
double ReadRopeScaling(ArchitectureKeys& keys) {
  const double old = keys.Number("rope.scale_linear", 0);
  double factor = keys.Number("rope.scaling.factor", old);
  if (factor == 0) factor = 1;
  const std::string type = keys.Text("rope.scaling.type");
  if (type == "none") return 1;
  if (type.empty() || type == "linear") return factor;
  if (type != "yarn" || factor != 1) {
    keys.Fail("rope.scaling.type", absl::StrCat("is ", Quoted(type), ", which is not supported"));
  }
  return 1;  // YaRN by a factor of 1 changes nothing
}

// LLaMA and its relatives.
void ReadLlama(const GgufFile& gguf, ArchitectureKeys& keys, ModelConfig& config) {
  config.kv_heads = keys.Dimension("attention.head_count_kv", kHeadsMax, config.heads);
  config.head_dim =
      keys.Dimension("attention.key_length", kHeadDimMax, std::max(1, config.hidden / config.heads));
  if (!keys.Has("attention.key_length") && config.hidden % config.heads != 0) {
    keys.Fail("embedding_length", absl::StrCat("does not divide by ", config.heads, " heads"));
  }
  if (keys.Dimension("attention.value_length", kHeadDimMax, config.head_dim) != config.head_dim) {
    keys.Fail("attention.value_length", "differs from the key's, which is not supported");
  }
  if (keys.Dimension("rope.dimension_count", kHeadDimMax, config.head_dim) != config.head_dim) {
    keys.Fail("rope.dimension_count", "rotates a part of each head, which is not supported");
  }
  config.norm_epsilon = keys.Number("attention.layer_norm_rms_epsilon", std::nullopt);
  config.rope_theta = keys.Number("rope.freq_base", 10000);
  keys.RefuseUnless("attention.max_alibi_bias", 0);
  if (const double factor = ReadRopeScaling(keys); factor != 1) {
    config.rope_factors.assign(config.head_dim / 2, static_cast<float>(factor));
  }
  config.qkv_bias = FindTensor(gguf, "blk.0.attn_q.bias") != nullptr;
  config.attention_output_bias = FindTensor(gguf, "blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = FindTensor(gguf, "blk.0.ffn_up.bias") != nullptr;
  config.head_norm = config.architecture == Architecture::kQwen3;
}

void ReadBloom(ArchitectureKeys& keys, ModelConfig& config) {
  config.kv_heads = config.heads;
  if (keys.Dimension("attention.head_count_kv", kHeadsMax, config.heads) != config.heads) {
    keys.Fail("attention.head_count_kv", "differs from the head count, which BLOOM has not");
  }
  if (config.hidden % config.heads != 0) {
    keys.Fail("embedding_length", absl::StrCat("does not divide by ", config.heads, " heads"));
  }
  config.head_dim = std::max(1, config.hidden / config.heads);
  config.norm_epsilon = keys.Number("attention.layer_norm_epsilon", std::nullopt);
  keys.RefuseUnless("attention.max_alibi_bias", kBloomAlibiBias);
  config.layer_norm = config.embedding_norm = config.alibi = true;
  config.gated_mlp = false;
  config.qkv_bias = config.attention_output_bias = config.mlp_bias = true;
}

// The tensor that holds what a llama3 scaling divides each pair's frequency by.
absl::Status ReadRopeFactors(const GgufFile& gguf, absl::Span<const std::byte> file, ModelConfig& config) {
  const BlockTensor* tensor = FindTensor(gguf, "rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  if (tensor->storage != StorageType::kF32 || tensor->rows != 1 || tensor->cols != config.head_dim / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor 'rope_freqs.weight' should hold ", config.head_dim / 2, " numbers of type F32"));
  }
  std::vector<float> factors(tensor->cols);
  DecodeFloats(tensor->storage, file.data() + tensor->offset, 0, absl::MakeSpan(factors));
  if (config.rope_factors.empty()) config.rope_factors.assign(factors.size(), 1);
  for (size_t i = 0; i < factors.size(); ++i) config.rope_factors[i] *= factors[i];
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const GgufFile& gguf, ModelConfig& config) {
  const auto read = [&](const char* key) -> absl::StatusOr<std::optional<TokenId>> {
    BW_ASSIGN_OR_RETURN(const std::optional<int64_t> id, gguf.Integer(key));
    if (!id.has_value() || *id < 0 || *id > kVocabMax) return std::nullopt;  // some writers put -1 for none
    return static_cast<TokenId>(*id);
  };
  BW_ASSIGN_OR_RETURN(config.bos, read("tokenizer.ggml.bos_token_id"));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    BW_ASSIGN_OR_RETURN(const std::optional<TokenId> id, read(key));
    if (id.has_value() && std::find(config.eos.begin(), config.eos.end(), *id) == config.eos.end()) {
      config.eos.push_back(*id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& gguf, absl::Span<const std::byte> file) {
  BW_ASSIGN_OR_RETURN(const std::string name, gguf.Text("general.architecture"));
  const std::optional<Architecture> architecture = FindArchitecture(name);
  if (!architecture || architecture == Architecture::kMistral) {
    return absl::UnimplementedError(absl::StrCat("models of architecture '", name,
                                                 "' are not supported; supported are llama (Mistral too), "
                                                 "bloom, qwen2, qwen3"));
  }
  BW_ASSIGN_OR_RETURN(const std::optional<int64_t> parts, gguf.Integer("split.count"));
  if (parts.value_or(1) > 1) {
    return absl::UnimplementedError(
        absl::StrCat("one of ", *parts, " parts; merge them with llama-gguf-split"));
  }
  ArchitectureKeys keys(gguf, name);
  ModelConfig config;
  config.architecture = *architecture;
  config.hidden = keys.Dimension("embedding_length", kHiddenMax);
  config.layers = keys.Dimension("block_count", kLayersMax);
  config.ffn = keys.Dimension("feed_forward_length", kFfnMax);
  config.heads = keys.Dimension("attention.head_count", kHeadsMax);
  config.max_positions = keys.Dimension("context_length", 1 << 30);
  const bool bloom = config.architecture == Architecture::kBloom;
  if (bloom) {
    ReadBloom(keys, config);
  } else {
    ReadLlama(gguf, keys, config);
  }
  for (const ForeignKey& key : kForeignKeys) keys.RefuseUnless(key.name, key.neutral);
  BW_RETURN_IF_ERROR(keys.status());
  if (!bloom) BW_RETURN_IF_ERROR(ReadRopeFactors(gguf, file, config));
  BW_RETURN_IF_ERROR(ReadTokenIds(gguf, config));
  const BlockTensor* embedding = FindTensor(gguf, "token_embd.weight");
  if (embedding == nullptr) return absl::InvalidArgumentError("tensor 'token_embd.weight' is missing");
  if (embedding->rows > kVocabMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor 'token_embd.weight' has ", embedding->rows, " rows"));
  }
  config.vocab = static_cast<int32_t>(embedding->rows);
  config.tied_head = FindTensor(gguf, "output.weight") == nullptr;
  BW_RETURN_IF_ERROR(Validate(config));
  return config;
}

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& gguf) {
  GgufVocabulary vocabulary;
  BW_ASSIGN_OR_RETURN(vocabulary.model, gguf.Text("tokenizer.ggml.model"));
  if (vocabulary.model.empty() || vocabulary.model == "none") return absl::NotFoundError("no tokenizer");
  BW_ASSIGN_OR_RETURN(vocabulary.pre, gguf.Text("tokenizer.ggml.pre"));
  BW_ASSIGN_OR_RETURN(vocabulary.tokens, gguf.Texts("tokenizer.ggml.tokens"));
  BW_ASSIGN_OR_RETURN(vocabulary.scores, gguf.Floats("tokenizer.ggml.scores"));
  BW_ASSIGN_OR_RETURN(vocabulary.merges, gguf.Texts("tokenizer.ggml.merges"));
  BW_ASSIGN_OR_RETURN(const std::vector<int64_t> types, gguf.Integers("tokenizer.ggml.token_type"));
  for (int64_t type : types) {
    if (type < 0 || type > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(absl::StrCat("'tokenizer.ggml.token_type' holds ", type));
    }
    vocabulary.token_types.push_back(static_cast<int32_t>(type));
  }
  const auto id = [&](const char* name) -> absl::StatusOr<std::optional<int32_t>> {
    BW_ASSIGN_OR_RETURN(const std::optional<int64_t> value,
                        gguf.Integer(absl::StrCat("tokenizer.ggml.", name)));
    if (!value.has_value() || *value < 0 || *value > kVocabMax) return std::nullopt;
    return static_cast<int32_t>(*value);
  };
  BW_ASSIGN_OR_RETURN(vocabulary.bos_id, id("bos_token_id"));
  BW_ASSIGN_OR_RETURN(vocabulary.eos_id, id("eos_token_id"));
  BW_ASSIGN_OR_RETURN(vocabulary.eot_id, id("eot_token_id"));
  BW_ASSIGN_OR_RETURN(vocabulary.unknown_id, id("unknown_token_id"));
  BW_ASSIGN_OR_RETURN(vocabulary.padding_id, id("padding_token_id"));
  BW_ASSIGN_OR_RETURN(vocabulary.add_bos, gguf.Bool("tokenizer.ggml.add_bos_token"));
  BW_ASSIGN_OR_RETURN(vocabulary.add_eos, gguf.Bool("tokenizer.ggml.add_eos_token"));
  BW_ASSIGN_OR_RETURN(vocabulary.add_space_prefix, gguf.Bool("tokenizer.ggml.add_space_prefix"));
  return vocabulary;
}

}  // namespace bellwether
