#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "model/config.h"
#include "model/layout.h"
#include "model/streamed_layers.h"

namespace bellwether {

// How flags, files, messages and the model id spell architectures and the numeric options. Parsing anything
// else is InvalidArgument, with what is allowed.

inline constexpr Architecture kArchitectures[] = {Architecture::kLlama, Architecture::kBloom,
                                                  Architecture::kMistral, Architecture::kQwen2,
                                                  Architecture::kQwen3};
std::string_view Name(Architecture architecture);  // "llama", "bloom", "mistral", "qwen2", "qwen3"
std::optional<Architecture> FindArchitecture(std::string_view name);
std::string ArchitectureNames();  // all, for messages

std::string_view Name(Quantize quantize);  // "none", "int8", "int4"
absl::StatusOr<Quantize> ParseQuantize(std::string_view name);
absl::StatusOr<DType> ParseDType(std::string_view name);  // "fp32", "bf16", "fp16"

absl::StatusOr<Offload> ParseOffload(std::string_view name);  // "auto", "nvme", "host", "off"

}  // namespace bellwether
