#include "model/quantization_config.h"

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

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

// The rules that GPTQModel has for some modules. Bits, groups and modules left alone show in the tensors.
absl::Status ReadRules(const Json& object, QuantizationConfig& config) {
  const Json& rules = object["dynamic"];
  if (rules.empty()) return absl::OkStatus();
  config.per_matrix = true;
  for (const auto& [pattern, rule] : rules.items()) {
    if (rule.contains("sym") && !(rule["sym"] == Json(config.symmetric))) config.symmetric = false;
    for (const char* key :
         {"format", "checkpoint_format", "quant_method", "method", "pack_dtype", "adapter"}) {
      if (rule[key].is_null()) continue;
      return absl::UnimplementedError(
          absl::StrCat("'dynamic' has ", Quoted(key), " for ", Quoted(pattern), ", which is not supported"));
    }
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
  config.act_order = fields.Bool({"desc_act"}, false);
  config.symmetric = fields.Bool({"sym"}, false);
  BW_RETURN_IF_ERROR(fields.status());
  if (!IsGptqBits(bits))
    return absl::InvalidArgumentError(absl::StrCat("'bits' is ", bits, "; 2, 3, 4 and 8 can be read"));
  config.bits = static_cast<int>(bits);
  if (group < -1 || group == 0) return absl::InvalidArgumentError(absl::StrCat("'group_size' is ", group));
  config.group = group;
  BW_RETURN_IF_ERROR(ReadLayout(fields, config));
  BW_RETURN_IF_ERROR(ReadRules(object, config));
  return config;
}

}  // namespace bellwether
