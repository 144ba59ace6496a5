#include "worker/device/gpu_device.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(GpuDeviceTest, AFaultLeavesTheDeviceLostForThisProcess) {
  GpuDevice device(gpu::MakeEmulatedRuntime({}), /*threads=*/1);
  EXPECT_TRUE(device.Health().ok());
  // What does not fit is no fault.
  EXPECT_FALSE(device.runtime().Allocate(int64_t{1} << 40).ok());
  EXPECT_TRUE(device.Health().ok());
  std::vector<char> host(16);
  device.runtime().CopyToDevice(host.data(), host.data(), 16);
  EXPECT_THAT(std::string(device.Health().message()), ::testing::HasSubstr("a copy of 16 bytes touches"));
  EXPECT_FALSE(device.Health().ok()) << "for good";
}

}  // namespace
}  // namespace bellwether
