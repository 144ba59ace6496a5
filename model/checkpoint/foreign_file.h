#pragma once

#include <cstddef>
#include <string>

#include "absl/types/span.h"

namespace bellwether {

// What stands where a table of tensors should, by its first bytes and whatever it is called, and what to do
// about it: "a GGUF file: give --model its path". Empty if the bytes say nothing.
std::string DescribeForeignFile(absl::Span<const std::byte> file);

}  // namespace bellwether
