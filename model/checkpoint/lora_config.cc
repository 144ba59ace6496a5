#include "model/checkpoint/lora_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/json_object.h"
#include "model/regex.h"

namespace bellwether {
namespace {

constexpr int64_t kRankMax = 4096;
constexpr size_t kModulesMax = 4096;
constexpr double kNumberMax = 1e9;  // of a pattern

// Without an effect on a trained adapter: how it was trained, or which tensors its file holds anyway.
constexpr std::string_view kNoEffect[] = {
    "auto_mapping",      "base_model_name_or_path",
    "revision",          "task_type",
    "inference_mode",    "target_modules",
    "exclude_modules",   "lora_dropout",
    "fan_in_fan_out",    "bias",
    "modules_to_save",   "layers_to_transform",
    "layers_pattern",    "loftq_config",
    "eva_config",        "corda_config",
    "runtime_config",    "peft_version",
    "megatron_core",     "qalora_group_size",
    "merge_weights",     "ensure_weight_tying",
    "peft_type",         "r",
    "lora_alpha",        "use_rslora",
    "rank_pattern",      "alpha_pattern",
    "init_lora_weights", "lora_ga_config",
};

struct Foreign {
  const char* name;
  const char* means;
};
constexpr Foreign kForeign[] = {
    {"use_dora", "DoRA, which scales the merged rows to a learned length"},
    {"lora_bias", "biases of LoRA's own matrices"},
    {"trainable_token_indices", "single rows of the embedding that were trained"},
    {"layer_replication", "layers that are repeated"},
    {"target_parameters", "parameters without a module"},
    {"megatron_config", "Megatron's parallel layers"},
    {"use_qalora", "QALoRA, which pools the inputs"},
    {"alora_invocation_tokens", "activated LoRA, which works from a token on"},
    {"arrow_config", "Arrow, which chooses among adapters"},
    {"use_bdlora", "block-diagonal matrices"},
    {"enable_lora", "matrices of which only some parts have an adapter"},
};

// Ways to begin that change the model itself: the adapter belongs to what is left of it.
bool ChangesTheBase(std::string_view init) {
  return init.starts_with("pissa") || init == "olora" || init == "loftq" || init == "corda" ||
         init == "lora_ga";
}

bool IsOff(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  return value.is_string() ? value.text().empty() : value.empty();
}

absl::Status RefuseForeignKeys(const Json& object) {
  for (const Foreign& key : kForeign) {
    if (IsOff(object[key.name])) continue;
    return absl::UnimplementedError(
        absl::StrCat("'", key.name, "' asks for ", key.means, ", which cannot be merged"));
  }
  const auto is = [](const auto& table, std::string_view key) {
    return std::any_of(std::begin(table), std::end(table), [&](const auto& entry) {
      if constexpr (std::is_same_v<std::decay_t<decltype(entry)>, Foreign>)
        return key == entry.name;
      else
        return key == entry;
    });
  };
  for (const auto& [key, value] : object.items()) {
    if (is(kNoEffect, key) || is(kForeign, key) || IsOff(value)) continue;
    return absl::UnimplementedError(
        absl::StrCat(Quoted(key), " is not known; it may change the maths, so it is not passed over"));
  }
  if (const std::string& init = object["init_lora_weights"].text(); ChangesTheBase(init)) {
    return absl::UnimplementedError(absl::StrCat("'init_lora_weights' is ", Quoted(init),
                                                 ": it belongs to a changed base model; save it with PEFT's "
                                                 "path_initial_model_for_weight_conversion"));
  }
  return absl::OkStatus();
}

template <typename T>
void ReadPatterns(const Json& object, JsonFields& fields, std::vector<std::pair<std::string, T>>& out) {
  for (const auto& [pattern, value] : object.items()) {
    const auto number = value.template get<double>();
    if (!(number > 0 && number <= kNumberMax))
      return fields.Fail(absl::StrCat("the pattern ", Quoted(pattern), " has no number above 0"));
    out.emplace_back(pattern, static_cast<T>(number));
  }
}

std::vector<std::string> ReadNames(const char* key, const Json& object, JsonFields& fields) {
  std::vector<std::string> names;
  const Json& list = object[key];
  if (list.elements().size() > kModulesMax)
    fields.Fail(absl::StrCat("'", key, "' lists more than ", kModulesMax, " modules"));
  for (const Json& name : list) {
    if (!name.text().empty()) names.push_back(name.text());
  }
  return names;
}

template <typename T>
std::string DescribePatterns(const std::vector<std::pair<std::string, T>>& patterns) {
  std::string text;
  for (const auto& [pattern, value] : patterns) absl::StrAppend(&text, " ", Quoted(pattern), " ", value);
  return text;
}

// The value of the first pattern that matches `module`.
template <typename T>
absl::StatusOr<std::optional<T>> FindPattern(const std::vector<std::pair<std::string, T>>& patterns,
                                             std::string_view module) {
  for (const auto& [pattern, value] : patterns) {
    BW_ASSIGN_OR_RETURN(const Regex regex, Regex::Compile(absl::StrCat("^(?:.*\\.)?(?:", pattern, ")$")));
    Regex::Matches matches(regex, module);
    BW_ASSIGN_OR_RETURN(const auto match, matches.Next());
    if (match.has_value()) return value;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<LoraConfig> ParseLoraConfig(const std::string& json_text) {
  BW_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json_text));
  JsonFields fields(object);
  const std::string type = fields.Text({"peft_type"}, "");
  if (type != "LORA") {
    return absl::UnimplementedError(absl::StrCat("'peft_type' is ", Quoted(type), "; LORA can be merged"));
  }
  BW_RETURN_IF_ERROR(RefuseForeignKeys(object));
  LoraConfig config;
  config.rank = fields.Integer({"r"}, 8);
  config.alpha = fields.Number({"lora_alpha"}, 8);
  config.rank_stabilised = fields.Bool({"use_rslora"}, false);
  ReadPatterns(object["rank_pattern"], fields, config.ranks);
  ReadPatterns(object["alpha_pattern"], fields, config.alphas);
  config.targets = ReadNames("target_modules", object, fields);
  config.saved = ReadNames("modules_to_save", object, fields);
  // null is no number, and what PEFT does without one is not 8.
  if (object.contains("lora_alpha") && !object["lora_alpha"].is_number())
    fields.Fail("'lora_alpha' is no number");
  if (config.rank < 1 || config.rank > kRankMax) fields.Fail(absl::StrCat("'r' is ", config.rank));
  if (!fields.status().ok()) return fields.status();
  return config;
}

std::string Describe(const LoraConfig& config) {
  return absl::StrCat("rank ", config.rank, " alpha ", config.alpha,
                      config.rank_stabilised ? " rank-stabilised" : "", " ranks",
                      DescribePatterns(config.ranks), " alphas", DescribePatterns(config.alphas));
}

absl::StatusOr<int64_t> LoraRank(const LoraConfig& config, std::string_view module) {
  BW_ASSIGN_OR_RETURN(const std::optional<int64_t> own, FindPattern(config.ranks, module));
  return own.value_or(config.rank);
}

absl::StatusOr<double> LoraScale(const LoraConfig& config, std::string_view module) {
  BW_ASSIGN_OR_RETURN(const int64_t rank, LoraRank(config, module));
  BW_ASSIGN_OR_RETURN(const std::optional<double> own, FindPattern(config.alphas, module));
  const auto divisor = static_cast<double>(rank);
  return own.value_or(config.alpha) / (config.rank_stabilised ? std::sqrt(divisor) : divisor);
}

}  // namespace bellwether
