#include "cli/devices.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Devices kTwo = {.gpus = {{.index = 0,
                                .name = "NVIDIA H200",
                                .uuid = "ab",
                                .numeric_class = "cuda_sm90",
                                .multiprocessors = 132,
                                .memory_bytes = int64_t{140} << 30,
                                .free_bytes = int64_t{139} << 30},
                               {.index = 1, .name = "Tesla T4", .uuid = "cd", .numeric_class = "cuda_sm75"}}};

TEST(DevicesTest, SaysWhichCardsAreOfUse) {
  EXPECT_THAT(DevicesText(kTwo),
              AllOf(HasSubstr("cuda:0    NVIDIA H200: kernel level cuda_sm90, 139.0 GiB of 140.0 GiB free"),
                    HasSubstr("cuda:1    Tesla T4: not supported: compute capability below 8.0"),
                    HasSubstr("\ncpu "), Not(HasSubstr("no GPU"))));
  EXPECT_THAT(DevicesJson(kTwo), AllOf(HasSubstr("\"supported\": true"), HasSubstr("\"supported\": false")));
}

// A card that another process holds for itself hid all others.
TEST(DevicesTest, SaysWhyACardCannotBeUsed) {
  Devices devices = kTwo;
  devices.gpus[1].problem = "cuda:1: all CUDA-capable devices are busy";
  EXPECT_THAT(DevicesText(devices),
              AllOf(HasSubstr("cuda:0    NVIDIA H200: kernel level cuda_sm90"),
                    HasSubstr("\n          cuda:1: all CUDA-capable devices are busy\n")));
  EXPECT_THAT(DevicesJson(devices), HasSubstr("\"problem\": \"cuda:1: all CUDA-capable devices are busy\""));
}

TEST(DevicesTest, SaysWhyThereIsNone) {
  EXPECT_THAT(DevicesText({.problem = "no driver"}), HasSubstr("\nno GPU: no driver\n"));
}

}  // namespace
}  // namespace bellwether
