#pragma once

#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace bellwether {

// Writes all bytes, however many pieces the system takes them in. 0, or the errno of what failed; what came
// before that is written.
inline int WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written >= 0) bytes.remove_prefix(static_cast<size_t>(written));
    if (written < 0 && errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace bellwether
