#pragma once

#include "absl/types/span.h"
#include "common/dtype.h"

namespace bellwether {

// Rounds values to those that bf16 or fp16 hold (other formats: nothing), as BF16FromF32 and F16FromF32 do.
// False if a finite value has become infinite.
bool RoundFloats(WeightFormat format, absl::Span<float> values);

}  // namespace bellwether
