#include "model/quantization_config.h"

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr size_t kRulesMax = 1024;

// Said wherever a method is refused.
constexpr char kInstead[] =
    "take the model's GPTQ, AWQ (gemm) or GGUF form, or its unquantised one, which --quantize int8 or int4 "
    "rounds while loading";

absl::Status Refuse(std::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("weights quantised by ", std::string(what), " cannot be read: ", kInstead));
}

// Older files do not name it, but each has keys of its own.
std::string MethodOf(const Json& object, JsonFields& fields) {
  std::string unnamed = "gptq";
  if (object.contains("load_in_4bit") || object.contains("load_in_8bit")) unnamed = "bitsandbytes";
  if (object.contains("w_bit")) unnamed = "awq";
  return absl::AsciiStrToLower(fields.Text({"quant_method"}, unnamed));
}

// How the integers of GPTQ or AWQ are laid out.
absl::Status ReadLayout(JsonFields& fields, QuantizationConfig& config) {
  const bool awq = config.method == QuantizationConfig::Method::kAwq;
  const std::string layout =
      absl::AsciiStrToLower(awq ? fields.Text({"version", "format"}, "gemm")
                                : fields.Text({"checkpoint_format", "format"}, "gptq"));
  if (fields.Bool({"is_marlin_format"}, false)) return Refuse("GPTQ and packed for Marlin's kernels");
  if (awq && layout != "gemm") return Refuse(absl::StrCat("AWQ in the layout ", Quoted(layout)));
  if (!awq && layout != "gptq" && layout != "gptq_v2")
    return Refuse(absl::StrCat("GPTQ in the layout ", Quoted(layout)));
  config.true_zeros = awq || layout == "gptq_v2";
  const std::string words = fields.Text({"pack_dtype"}, "int32");
  if (words != "int32") return Refuse(absl::StrCat("GPTQ in words of ", Quoted(words)));
  return fields.status();
}

absl::StatusOr<int> CheckBits(int64_t bits) {
  if (IsGptqBits(bits)) return static_cast<int>(bits);
  return absl::InvalidArgumentError(absl::StrCat("'bits' is ", bits, "; 2, 3, 4 and 8 can be read"));
}

absl::StatusOr<int64_t> CheckGroup(int64_t group) {
  if (group == -1 || group > 0) return group;
  return absl::InvalidArgumentError(absl::StrCat("'group_size' is ", group));
}

// Groups that were set before the inputs were reordered ("static_groups") follow each other all the same.
bool ReadActOrder(JsonFields& fields) {
  return fields.Bool({"desc_act"}, false) && !fields.Bool({"static_groups"}, false);
}

absl::StatusOr<MatrixRule> ReadRule(const std::string& pattern, const Json& object) {
  for (const char* key : {"format", "checkpoint_format", "quant_method", "method", "pack_dtype", "adapter"}) {
    if (object[key].is_null()) continue;
    return absl::UnimplementedError(absl::StrCat("it has ", Quoted(key), ", which is not supported"));
  }
  MatrixRule rule{.pattern = pattern};
  JsonFields fields(object);
  if (fields.Has("bits")) {
    BW_ASSIGN_OR_RETURN(rule.bits, CheckBits(fields.Integer({"bits"}, std::nullopt)));
  }
  if (fields.Has("group_size")) {
    BW_ASSIGN_OR_RETURN(rule.group, CheckGroup(fields.Integer({"group_size"}, std::nullopt)));
  }
  if (fields.Has("desc_act")) rule.act_order = ReadActOrder(fields);
  BW_RETURN_IF_ERROR(fields.status());
  return rule;
}

// "+:PATTERN", or PATTERN alone, sets something; "-:PATTERN" leaves matrices as they are, which shows in the
// tensors.
absl::Status ReadRules(const Json& object, QuantizationConfig& config) {
  const Json& rules = object["dynamic"];
  if (rules.size() > kRulesMax)
    return absl::InvalidArgumentError(absl::StrCat("'dynamic' has more than ", kRulesMax, " rules"));
  for (const auto& [name, members] : rules.items()) {
    if (members.contains("sym") && !(members["sym"] == Json(config.symmetric))) config.symmetric = false;
    std::string pattern = name;
    if (pattern.starts_with("+:") || pattern.starts_with("-:")) pattern = pattern.substr(2);
    absl::StatusOr<MatrixRule> rule = ReadRule(pattern, members);
    if (!rule.ok()) return Annotate(rule.status(), absl::StrCat("'dynamic', ", Quoted(name)));
    config.rules.push_back(*std::move(rule));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsGptqBits(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

absl::StatusOr<QuantizationConfig> ParseQuantizationConfig(const Json& object) {
  if (!object.is_object()) return absl::InvalidArgumentError("the quantisation's settings are no object");
  JsonFields fields(object);
  QuantizationConfig config;
  const std::string method = MethodOf(object, fields);
  BW_RETURN_IF_ERROR(fields.status());
  if (method == "awq") {
    config.method = QuantizationConfig::Method::kAwq;
  } else if (method != "gptq") {
    return Refuse(Quoted(method));
  }
  const int64_t bits = fields.Integer({"bits", "w_bit"}, std::nullopt);
  const int64_t group = fields.Integer({"group_size", "q_group_size"}, -1);
  config.act_order = ReadActOrder(fields);
  config.symmetric = fields.Bool({"sym"}, false);
  BW_RETURN_IF_ERROR(fields.status());
  BW_ASSIGN_OR_RETURN(config.bits, CheckBits(bits));
  BW_ASSIGN_OR_RETURN(config.group, CheckGroup(group));
  BW_RETURN_IF_ERROR(ReadLayout(fields, config));
  BW_RETURN_IF_ERROR(ReadRules(object, config));
  return config;
}

absl::StatusOr<MatrixSettings> MatrixSettings::Compile(QuantizationConfig config) {
  MatrixSettings settings(std::move(config));
  for (const MatrixRule& rule : settings.config_.rules) {
    absl::StatusOr<Regex> pattern = Regex::Compile(absl::StrCat("^(?:", rule.pattern, ").*$"));
    if (!pattern.ok()) return Annotate(pattern.status(), "'dynamic'");
    settings.patterns_.push_back(*std::move(pattern));
  }
  return settings;
}

absl::StatusOr<QuantizationConfig> MatrixSettings::Of(std::string_view module) const {
  QuantizationConfig own = config_;
  own.rules.clear();
  for (size_t i = 0; i < patterns_.size(); ++i) {
    Regex::Matches matches(patterns_[i], module);
    BW_ASSIGN_OR_RETURN(const auto match, matches.Next());
    if (!match.has_value()) continue;
    const MatrixRule& rule = config_.rules[i];
    if (rule.bits.has_value()) own.bits = rule.bits;
    if (rule.group.has_value()) own.group = rule.group;
    if (rule.act_order.has_value()) own.act_order = rule.act_order;
    break;
  }
  return own;
}

}  // namespace bellwether
