#include "model/checkpoint/read_options.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/option_names.h"
#include "model/quantization_config.h"

namespace bellwether {
namespace {

std::string Given(const std::string& flag, const ReadingText& reading) {
  const auto at = reading.find(flag);
  return at == reading.end() ? absl::StrCat("without --", flag)
                             : absl::StrCat("with --", flag, " ", Printable(at->second));
}

// With all its digits.
std::string FormatNumber(double value) { return absl::StrFormat("%.17g", value); }

}  // namespace

absl::StatusOr<std::optional<DType>> ParseLoadDType(const std::string& name) {
  if (name == "auto") return std::nullopt;
  const absl::StatusOr<DType> type = ParseDType(name);
  if (type.ok()) return *type;
  return absl::InvalidArgumentError(absl::StrCat("dtype is \"", name, "\", allowed: auto, fp32, bf16, fp16"));
}

absl::StatusOr<int> ParseGptqBits(const std::string& text) {
  int bits = 0;
  if (absl::SimpleAtoi(text, &bits) && IsGptqBits(bits)) return bits;
  return absl::InvalidArgumentError(absl::StrCat("gptq-bits is ", Quoted(text), ", allowed: 2, 3, 4, 8"));
}

absl::StatusOr<int64_t> ParseGptqGroup(const std::string& text) {
  int64_t group = 0;
  if (absl::SimpleAtoi(text, &group) && (group == -1 || group > 0)) return group;
  return absl::InvalidArgumentError(
      absl::StrCat("gptq-group is ", Quoted(text), ", expected a number of inputs, or -1 for all"));
}

absl::StatusOr<LoraOption> ParseLora(const std::string& text) {
  LoraOption option{.path = text};
  const size_t colon = text.rfind(':');
  double scale = 0;
  if (colon != std::string::npos && absl::SimpleAtod(text.substr(colon + 1), &scale)) {
    option = {.path = text.substr(0, colon), .scale = scale};
  }
  if (!option.path.empty() && std::isfinite(option.scale)) return option;
  return absl::InvalidArgumentError(absl::StrCat("lora is ", Quoted(text), ", expected PATH or PATH:SCALE"));
}

std::string LoadDTypeName(std::optional<DType> dtype) {
  return dtype.has_value() ? std::string(Name(*dtype)) : "auto";
}

std::vector<std::string> FlagsOf(const ReadOptions& options) {
  std::vector<std::string> flags;
  if (options.dtype.has_value()) flags.insert(flags.end(), {"--dtype", LoadDTypeName(options.dtype)});
  if (options.gptq.bits.has_value())
    flags.insert(flags.end(), {"--gptq-bits", absl::StrCat(*options.gptq.bits)});
  if (options.gptq.group.has_value())
    flags.insert(flags.end(), {"--gptq-group", absl::StrCat(*options.gptq.group)});
  for (const LoraOption& lora : options.lora)
    flags.insert(flags.end(), {"--lora", absl::StrCat(lora.path, ":", FormatNumber(lora.scale))});
  if (!options.billa_base.empty()) flags.insert(flags.end(), {"--billa-base", options.billa_base});
  return flags;
}

std::string DifferenceOf(const ReadingText& theirs, const ReadingText& ours, const std::string& us) {
  ReadingText all = theirs;
  all.insert(ours.begin(), ours.end());
  for (const auto& [flag, value] : all) {
    const std::string there = Given(flag, theirs), here = Given(flag, ours);
    if (there != here) return absl::StrCat(there, ", ", us, " ", here);
  }
  return "";
}

}  // namespace bellwether
