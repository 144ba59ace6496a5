#include "model/checkpoint/quantization_settings.h"

#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

// What the flag says stands where `settings` is silent.
template <typename T>
absl::Status Merge(std::string_view flag, const std::optional<T>& given, const std::string& path,
                   std::optional<T>& setting) {
  if (!given.has_value()) return absl::OkStatus();
  if (setting.value_or(*given) != *given) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(flag), " is ", *given, ", but ", path, " says ", *setting));
  }
  setting = given;
  return absl::OkStatus();
}

// Names that a setting has had, of those that two files must agree on.
using SettingNames = std::vector<const char*>;

std::vector<SettingNames> DecisiveSettings(const Json& object) {
  const bool awq = object.contains("w_bit") || absl::EqualsIgnoreCase(object["quant_method"].text(), "awq");
  return {{"quant_method"},
          {"bits", "w_bit"},
          {"group_size", "q_group_size"},
          awq ? SettingNames{"version", "format"} : SettingNames{"checkpoint_format", "format"},
          {"sym"}};
}

// Null if none of the names is there.
const Json& FindSetting(const Json& object, const SettingNames& names) {
  static const Json none;
  for (const char* name : names) {
    if (!object[name].is_null()) return object[name];
  }
  return none;
}

bool Same(const Json& a, const Json& b) {
  return a == b || (a.is_string() && b.is_string() && absl::EqualsIgnoreCase(a.text(), b.text()));
}

// Adds what only `more` says: GPTQ's tools wrote a file of their own before transformers had a place for it,
// and published models have both.
absl::Status MergeFile(const QuantizationSettings& more, QuantizationSettings& merged) {
  for (const SettingNames& names : DecisiveSettings(more.object)) {
    const Json &theirs = FindSetting(more.object, names), &ours = FindSetting(merged.object, names);
    if (theirs.is_null()) continue;
    if (ours.is_null()) {
      merged.object[names.front()] = theirs;
    } else if (!Same(ours, theirs)) {
      return absl::InvalidArgumentError(absl::StrCat(more.path, ": '", names.front(), "' is ",
                                                     WriteJson(theirs), ", but ", merged.path, " says ",
                                                     WriteJson(ours)));
    }
  }
  for (const auto& [name, value] : more.object.items()) {
    if (name != "format" && name != "version" && merged.object[name].is_null()) merged.object[name] = value;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizationSettings> ReadQuantizationSettings(const std::string& dir) {
  QuantizationSettings merged;
  for (const char* name : {"config.json", "quantize_config.json", "quant_config.json"}) {
    const std::string path = absl::StrCat(dir, "/", name);
    const absl::StatusOr<std::string> text = ReadSmallFile(path, kJsonBytesMax);
    if (absl::IsNotFound(text.status())) continue;
    BW_RETURN_IF_ERROR(text.status());
    const absl::StatusOr<Json> object = ParseJsonObject(*text);
    if (!object.ok()) return Annotate(object.status(), path);
    const Json& settings =
        std::string_view(name) == "config.json" ? (*object)["quantization_config"] : *object;
    if (settings.empty()) continue;
    if (merged.object.is_null()) {
      merged = {settings, path};
    } else {
      BW_RETURN_IF_ERROR(MergeFile({settings, path}, merged));
    }
  }
  return merged;
}

absl::StatusOr<QuantizationConfig> MergeQuantization(const QuantizationSettings& settings,
                                                     const GptqOptions& options) {
  QuantizationConfig config;
  if (!settings.object.is_null()) {
    absl::StatusOr<QuantizationConfig> parsed = ParseQuantizationConfig(settings.object);
    if (!parsed.ok()) return Annotate(parsed.status(), settings.path);
    config = *parsed;
  }
  BW_RETURN_IF_ERROR(Merge("--gptq-bits", options.bits, settings.path, config.bits));
  BW_RETURN_IF_ERROR(Merge("--gptq-group", options.group, settings.path, config.group));
  return config;
}

}  // namespace bellwether
