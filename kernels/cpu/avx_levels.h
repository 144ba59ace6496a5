#pragma once

#include "kernels/cpu/avx_tiles.h"

// What the files of a level offer each other. One file a subject, so that they compile side by side.

namespace bellwether::kernels {

namespace avx2 {
const TileFunctions& Tiles(WeightFormat format);
}
namespace avx512 {
const TileFunctions& Tiles(WeightFormat format);
}
namespace avx512_bf16 {
const TileFunctions& BF16Tiles();  // vdpbf16ps
}

}  // namespace bellwether::kernels
