#include "kernels/gpu/kernel_list.h"

#include <filesystem>
#include <set>
#include <string>

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

}  // namespace
}  // namespace bellwether::gpu
