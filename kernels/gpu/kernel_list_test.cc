#include "kernels/gpu/kernel_list.h"

#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/kernel_coverage.h"

namespace bellwether::gpu {
namespace {

// One that is not shown to be right on the emulator must not reach a GPU.
TEST(KernelListTest, EveryKernelHasATest) {
  std::set<std::string> names;
  for (const KernelInfo& kernel : kKernels) {
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name << " twice";
    const std::string program(OwnerOf(kernel.name));
    ASSERT_FALSE(program.empty()) << kernel.name << ": name its test in testing/kernel_coverage.h";
    EXPECT_TRUE(std::filesystem::exists("kernels/gpu/" + program + ".cc")) << program;
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kKernelCount));
}

// Lists of launches are compared byte by byte: a list of a decode step whose arguments had bytes that nobody
// sets looked like another one, and became a graph late or never.
template <typename Args>
std::vector<size_t> UnsetBytes() {
  std::vector<size_t> unset;
#if __has_builtin(__builtin_clear_padding)
  alignas(Args) unsigned char bytes[sizeof(Args)];
  std::memset(bytes, 0xff, sizeof(Args));
  __builtin_clear_padding(reinterpret_cast<Args*>(bytes));
  for (size_t i = 0; i < sizeof(Args); ++i) {
    if (bytes[i] != 0xff) unset.push_back(i);
  }
#endif
  return unset;
}

TEST(KernelListTest, ArgumentsHaveNoBytesThatNobodySets) {
#if !__has_builtin(__builtin_clear_padding)
  GTEST_SKIP() << "this compiler does not tell";
#endif
#define BW_EXPECT_ALL_SET(name, args, body, threads, blocks) \
  EXPECT_THAT(UnsetBytes<args>(), ::testing::IsEmpty()) << #args;
  BW_GPU_KERNELS(BW_EXPECT_ALL_SET)
  BW_HOPPER_KERNELS(BW_EXPECT_ALL_SET)
#undef BW_EXPECT_ALL_SET
}

}  // namespace
}  // namespace bellwether::gpu
