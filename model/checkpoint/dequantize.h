#pragma once

#include "common/dtype.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// Float tensors become `type`: what a wider one holds is rounded as it is read.
void RoundFloatTensors(DType type, CheckpointContents& contents);

// Quantised matrices become `type`: what Checkpoint::ReadFloats gives of them as they are, rounded as it is
// read. Floats stay as they are.
void Dequantize(DType type, CheckpointContents& contents);

}  // namespace bellwether
