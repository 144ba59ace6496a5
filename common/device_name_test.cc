#include "common/device_name.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(DeviceNameTest, Names) {
  EXPECT_EQ(ParseDeviceName("cpu")->kind, DeviceName::Kind::kCpu);
  EXPECT_EQ(ParseDeviceName("auto")->kind, DeviceName::Kind::kAuto);
  EXPECT_EQ(ParseDeviceName("emulated")->kind, DeviceName::Kind::kEmulated);
  EXPECT_EQ(ParseDeviceName("cuda:0")->kind, DeviceName::Kind::kCuda);
  EXPECT_EQ(ParseDeviceName("cuda:17")->index, 17);
}

TEST(DeviceNameTest, AnythingElseIsRefusedWithWhatIsExpected) {
  for (const char* name : {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:01",
                           "cuda:4096", "17"}) {
    const auto parsed = ParseDeviceName(name);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(parsed.status().message()), ::testing::HasSubstr("cpu, auto or cuda:N")) << name;
  }
}

}  // namespace
}  // namespace bellwether
