#include "common/system_random.h"

#include <errno.h>
#include <sys/random.h>

#include "common/check.h"

namespace bellwether {

void FillRandom(void* out, size_t size) {
  auto* bytes = static_cast<unsigned char*>(out);
  while (size > 0) {
    const ssize_t got = getrandom(bytes, size, 0);
    if (got < 0 && errno == EINTR) continue;
    BW_CHECK(got > 0);  // Linux has had it since 3.17
    bytes += got;
    size -= static_cast<size_t>(got);
  }
}

}  // namespace bellwether
