#include "model/checkpoint/quantization_settings.h"

#include <optional>
#include <string_view>

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

}  // namespace

absl::StatusOr<QuantizationSettings> ReadQuantizationSettings(const std::string& dir) {
  for (const char* name : {"config.json", "quantize_config.json", "quant_config.json"}) {
    const std::string path = absl::StrCat(dir, "/", name);
    const absl::StatusOr<std::string> text = ReadSmallFile(path, kJsonBytesMax);
    if (absl::IsNotFound(text.status())) continue;
    BW_RETURN_IF_ERROR(text.status());
    const absl::StatusOr<Json> object = ParseJsonObject(*text);
    if (!object.ok()) return Annotate(object.status(), path);
    const Json& settings =
        std::string_view(name) == "config.json" ? (*object)["quantization_config"] : *object;
    if (!settings.empty()) return QuantizationSettings{settings, path};
  }
  return QuantizationSettings{};
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
