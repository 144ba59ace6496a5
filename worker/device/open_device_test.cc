#include "worker/device/open_device.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/runtime.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OpenDeviceTest, TheCpuHasItsLevelsAndNoMemoryOfItsOwn) {
  const auto opened = OpenDevice({.name = *ParseDeviceName("cpu"), .threads = 3});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->device->Describe(), "cpu, 3 threads");
  EXPECT_EQ(opened->kernel_levels, KernelLevelNames());
  EXPECT_FALSE(opened->gpu.has_value());
}

TEST(OpenDeviceTest, AnEmulatedGpuSaysWhatItHas) {
  const auto opened = OpenDevice({.name = *ParseDeviceName("emulated")});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_THAT(opened->kernel_levels, ElementsAre("cuda_sm90"));
  ASSERT_TRUE(opened->gpu.has_value());
  EXPECT_EQ(opened->gpu->free_bytes, opened->gpu->memory_bytes);
  EXPECT_GT(opened->gpu->read_bytes_per_second, 0);
  EXPECT_THAT(opened->gpu->uuid, HasSubstr("emulated"));
}

// Neither way is taken in silence: it is a GPU, or the CPU where the runtime says that there is none.
TEST(OpenDeviceTest, AutoIsAGpuWhereThereIsOne) {
  const auto devices = gpu::ListCudaDevices();
  testing::internal::CaptureStderr();
  const auto opened = OpenDevice({.name = *ParseDeviceName("auto")});
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->gpu.has_value(), devices.ok() && !devices->empty());
  const char* const warning = "device auto: the CPU computes, as there is no GPU to use (";
  EXPECT_EQ(log.find(warning) != std::string::npos, !opened->gpu.has_value()) << log;
}

TEST(OpenDeviceTest, AGpuThatIsNotThereIsAnErrorInOneLine) {
  const absl::Status status = OpenDevice({.name = *ParseDeviceName("cuda:1023")}).status();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
}

}  // namespace
}  // namespace bellwether
