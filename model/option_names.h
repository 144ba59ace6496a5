#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "model/layout.h"

namespace bellwether {

// How flags, files and messages spell the numeric options. Parsing anything else is InvalidArgument, with
// what is allowed.

std::string_view Name(Quantize quantize);  // "none", "int8", "int4"
absl::StatusOr<Quantize> ParseQuantize(std::string_view name);
absl::StatusOr<DType> ParseDType(std::string_view name);  // "fp32", "bf16", "fp16"

}  // namespace bellwether
