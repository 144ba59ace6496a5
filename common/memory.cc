#include "common/memory.h"

#include <malloc.h>

namespace bellwether {

void ReturnBigBlocksAtOnce() {
  constexpr int kBigBlockBytes = 256 << 10;
  (void)mallopt(M_MMAP_THRESHOLD, kBigBlockBytes);
  (void)mallopt(M_TRIM_THRESHOLD, 4 * kBigBlockBytes);
}

}  // namespace bellwether
