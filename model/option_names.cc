#include "model/option_names.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace bellwether {

std::string_view Name(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
      return "llama";
    case Architecture::kBloom:
      return "bloom";
    case Architecture::kMistral:
      return "mistral";
    case Architecture::kQwen2:
      return "qwen2";
    case Architecture::kQwen3:
      return "qwen3";
  }
  return "unknown";
}

std::optional<Architecture> FindArchitecture(std::string_view name) {
  for (const Architecture architecture : kArchitectures) {
    if (Name(architecture) == name) return architecture;
  }
  return std::nullopt;
}

std::string ArchitectureNames() {
  return absl::StrJoin(kArchitectures, ", ", [](std::string* out, Architecture architecture) {
    absl::StrAppend(out, std::string(Name(architecture)));
  });
}

std::string_view Name(Quantize quantize) {
  return quantize == Quantize::kInt8 ? "int8" : quantize == Quantize::kInt4 ? "int4" : "none";
}

absl::StatusOr<Quantize> ParseQuantize(std::string_view name) {
  for (const Quantize value : {Quantize::kNone, Quantize::kInt8, Quantize::kInt4}) {
    if (Name(value) == name) return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("quantize is \"", std::string(name), "\", allowed: none, int8, int4"));
}

absl::StatusOr<DType> ParseDType(std::string_view name) {
  for (const DType value : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (Name(value) == name) return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("type is \"", std::string(name), "\", allowed: fp32, bf16, fp16"));
}

absl::StatusOr<Offload> ParseOffload(std::string_view name) {
  if (name == "auto") return Offload::kAuto;
  if (name == "off") return Offload::kOff;
  if (name == "nvme") return Offload::kDrive;
  if (name == "host") return Offload::kHost;
  return absl::InvalidArgumentError(
      absl::StrCat("offload is \"", std::string(name), "\", allowed: auto, nvme, host, off"));
}

}  // namespace bellwether
