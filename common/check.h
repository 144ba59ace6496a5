#pragma once

#include <cstdio>
#include <cstdlib>

// A broken invariant of our own code: stop at once, in release builds too. Errors of the world (files, peers,
// users) are never checked this way; they are absl::Status.
#define BW_CHECK(condition)                                      \
  do {                                                           \
    if (!(condition)) [[unlikely]]                               \
      ::bellwether::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
#define BW_CHECK_EQ(a, b) BW_CHECK((a) == (b))
#define BW_CHECK_LT(a, b) BW_CHECK((a) < (b))
#define BW_CHECK_GE(a, b) BW_CHECK((a) >= (b))

namespace bellwether {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}

}  // namespace bellwether
