#include "common/memory.h"

#include <sys/resource.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "common/testing/sanitizer.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

class MemoryDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    if (IsSanitized()) GTEST_SKIP() << "a sanitizer takes terabytes of address space";
  }
};

void LimitAddressSpace(rlim_t bytes) {
  const rlimit limit{.rlim_cur = bytes, .rlim_max = bytes};
  (void)setrlimit(RLIMIT_AS, &limit);
}

// As in a thread of a library: nobody catches what is thrown.
template <typename Body>
void InAThread(Body body) {
  std::thread(body).join();
}
void NeedMemory() { ::operator delete(::operator new (size_t{1} << 60)); }
void NeedThread() {
  const auto heap_of_this_thread = std::make_unique<int>();  // small memory is still to be had
  LimitAddressSpace(1 << 20);
  InAThread([] {});
}

TEST_F(MemoryDeathTest, MemoryThatIsNotGivenIsSaid) {
  EXPECT_EXIT(
      {
        SayWhatWasShort();
        InAThread(NeedMemory);
      },
      testing::ExitedWithCode(1), "the system gives no memory");
}

TEST_F(MemoryDeathTest, AThreadThatIsNotGivenIsSaidWithTheLimit) {
  EXPECT_EXIT(
      {
        SayWhatWasShort();
        InAThread(NeedThread);
      },
      testing::ExitedWithCode(1), "the system gives no thread: the address space may be 1024 KiB");
}

TEST_F(MemoryDeathTest, TooLittleAddressSpaceIsKnownBeforehand) {
  EXPECT_TRUE(CheckAddressSpace().ok()) << CheckAddressSpace();
  EXPECT_EXIT(
      {
        LimitAddressSpace(400000 << 10);
        fprintf(stderr, "%s\n", std::string(CheckAddressSpace().message()).c_str());
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "the address space may only be 400000 KiB");
}

}  // namespace
}  // namespace bellwether
