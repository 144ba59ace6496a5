#pragma once

#include "model/checkpoint/contents.h"
#include "model/checkpoint/sha256.h"

namespace bellwether {

// Adds 4 KiB, spread over the tensor, of each part of files that its values come from, and what else decides
// on them.
void AddSamples(const StoredTensor& tensor, Sha256& hash);

}  // namespace bellwether
