#include "kernels/gpu/gpu_error.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Expected {
  absl::string_view error;
  absl::StatusCode code;
  const char* what_to_do;
};
class GpuErrorTest : public ::testing::TestWithParam<Expected> {};

TEST_P(GpuErrorTest, SaysWhatToDo) {
  const Expected& expected = GetParam();
  const absl::Status status = GpuError("cuda:1 (NVIDIA H200)", expected.error, "as CUDA puts it");
  EXPECT_EQ(status.code(), expected.code);
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith("cuda:1 (NVIDIA H200): "), HasSubstr(expected.what_to_do)));
}

INSTANTIATE_TEST_SUITE_P(
    All, GpuErrorTest,
    ::testing::Values(
        Expected{"cudaErrorInsufficientDriver", absl::StatusCode::kUnavailable, "update the NVIDIA driver"},
        Expected{kNoDriver, absl::StatusCode::kUnavailable, "has no NVIDIA driver: install it"},
        Expected{"cudaErrorNoKernelImageForDevice", absl::StatusCode::kFailedPrecondition,
                 "needs compute capability 8.0"},
        Expected{"cudaErrorDevicesUnavailable", absl::StatusCode::kUnavailable,
                 "another process holds the card"},
        Expected{"cudaErrorECCUncorrectable", absl::StatusCode::kInternal, "start the worker anew"},
        Expected{"cudaErrorMemoryAllocation", absl::StatusCode::kResourceExhausted,
                 "--device-memory-fraction"},
        Expected{kPinnedMemory, absl::StatusCode::kResourceExhausted, "the host's memory that is short"}));

TEST(GpuErrorTest, EveryAdviceIsOneLineAndOnce) {
  std::set<std::string> errors;
  for (const GpuAdvice& row : GpuAdvices()) {
    EXPECT_TRUE(errors.insert(std::string(row.error)).second) << row.error;
    EXPECT_EQ(row.advice.find('\n'), absl::string_view::npos) << row.error;
    EXPECT_FALSE(row.advice.empty()) << row.error;
  }
}

TEST(GpuErrorTest, WhatNobodyKnowsIsToldAsItCame) {
  const absl::Status status = GpuError("cuda:0", "cudaErrorOfTomorrow", "something new");
  EXPECT_EQ(status, absl::InternalError("cuda:0: something new (cudaErrorOfTomorrow)"));
}

// The card has memory enough where it is the host that is short.
TEST(GpuErrorTest, PinnedMemoryIsNotTheCards) {
  const std::string message(
      GpuError("cuda:0: 5 bytes of pinned host memory", kPinnedMemory, "out of memory").message());
  EXPECT_THAT(message, HasSubstr("(cudaErrorMemoryAllocation)"));
  EXPECT_EQ(message.find("--device-memory-fraction"), std::string::npos);
}

// What a card must be: the classes that the planner knows.
TEST(GpuErrorTest, OlderCardsAreOfNoUse) {
  EXPECT_EQ(NumericClass(7, 5), "cuda_sm75");
  EXPECT_FALSE(IsSupported({.numeric_class = NumericClass(7, 5)}));
  for (const auto& [major, level] :
       {std::pair{8, "cuda_sm80"}, {9, "cuda_sm90"}, {10, "cuda_sm90"}, {12, "cuda_sm90"}}) {
    EXPECT_EQ(NumericClass(major, 0), level);
    EXPECT_TRUE(IsSupported({.numeric_class = level})) << level;
  }
}

}  // namespace
}  // namespace bellwether::gpu
