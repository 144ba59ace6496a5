#include "common/memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// What a program of ours takes before it holds anything: libraries, arenas of the allocator, and the stacks
// of gRPC's threads, of which there are more on a machine with more cores.
rlim_t AddressSpaceMin() {
  constexpr rlim_t kMiB = 1 << 20;
  return 736 * kMiB + 16 * kMiB * static_cast<rlim_t>(std::max<int64_t>(1, sysconf(_SC_NPROCESSORS_ONLN)));
}

rlim_t AddressSpaceLimit() {
  rlimit limit{};
  (void)getrlimit(RLIMIT_AS, &limit);  // fails for a bad address alone
  return limit.rlim_cur;
}

void SayShort(const char* what) {
  // Not by the log, which takes memory.
  if (const rlim_t limit = AddressSpaceLimit(); limit != RLIM_INFINITY) {
    (void)dprintf(STDERR_FILENO, "%s: the system gives no %s: the address space may be %ju KiB (ulimit -v)\n",
                  program_invocation_short_name, what, static_cast<uintmax_t>(limit >> 10));
  } else {
    (void)dprintf(STDERR_FILENO, "%s: the system gives no %s\n", program_invocation_short_name, what);
  }
}

[[noreturn]] void EndByTerminate() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    SayShort("memory");
    _exit(1);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      SayShort("thread");
      _exit(1);
    }
    (void)dprintf(STDERR_FILENO, "%s: %s\n", program_invocation_short_name, error.what());
  } catch (const std::exception& error) {
    (void)dprintf(STDERR_FILENO, "%s: %s\n", program_invocation_short_name, error.what());
  } catch (...) {
  }
  std::abort();  // a fault of ours
}

}  // namespace

void ReturnBigBlocksAtOnce() {
  constexpr int kBigBlockBytes = 256 << 10;
  (void)mallopt(M_MMAP_THRESHOLD, kBigBlockBytes);
  (void)mallopt(M_TRIM_THRESHOLD, 4 * kBigBlockBytes);
}

void SayWhatWasShort() { std::set_terminate(EndByTerminate); }

absl::Status CheckAddressSpace() {
  const rlim_t limit = AddressSpaceLimit();
  if (limit >= AddressSpaceMin()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the address space may only be ", limit >> 10,
                                                    " KiB, at least ", AddressSpaceMin() >> 10,
                                                    " are needed: raise the limit (ulimit -v)"));
}

}  // namespace bellwether
