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

// Not by the log, which takes memory.
void Say(const char* text) { (void)dprintf(STDERR_FILENO, "%s: %s\n", program_invocation_short_name, text); }

[[noreturn]] void EndShortOf(const char* what) {
  const rlim_t limit = AddressSpaceLimit();
  char text[128] = "";
  if (limit == RLIM_INFINITY) {
    (void)snprintf(text, sizeof(text), "the system gives no %s", what);
  } else {
    (void)snprintf(text, sizeof(text), "the system gives no %s: the address space may be %ju KiB (ulimit -v)",
                   what, static_cast<uintmax_t>(limit >> 10));
  }
  Say(text);
  _exit(1);
}

[[noreturn]] void EndByTerminate() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    EndShortOf("memory");
  } catch (const std::exception& error) {
    const auto* of_system = dynamic_cast<const std::system_error*>(&error);
    if (of_system != nullptr && of_system->code() == std::errc::resource_unavailable_try_again)
      EndShortOf("thread");
    Say(error.what());
  } catch (...) {
  }
  Say("ended by a fault of its own");
  std::abort();
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
