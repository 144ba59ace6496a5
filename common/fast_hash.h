#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace bellwether {

// A 64-bit hash as fast as memory is read, the same on every machine. It shows what has changed by accident;
// whoever wants to make two equal hashes can. Data that differ in one word (or that have another length, or
// another seed) always differ in their hash before it is finished, which is a bijection.
uint64_t FastHash(absl::Span<const std::byte> data, uint64_t seed);

}  // namespace bellwether
