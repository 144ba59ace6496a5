#pragma once

#include <cstddef>

namespace bellwether {

// Bytes that nobody can guess, from the system: for secrets, names and seeds. What is computed from a seed is
// common/random.h.
void FillRandom(void* out, size_t size);

}  // namespace bellwether
