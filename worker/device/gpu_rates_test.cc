#include "worker/device/gpu_rates.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(GpuRatesTest, ProductsAreMeasuredAndTheirMemoryGivenBack) {
  const std::shared_ptr<gpu::Runtime> gpu = gpu::MakeEmulatedRuntime({});
  const int64_t free = *gpu->FreeBytes();
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt8}) {
    const auto rate = MeasureProductRate(gpu, {.format = format, .rows = 64, .width = 128, .times = 2});
    ASSERT_TRUE(rate.ok()) << rate.status();
    EXPECT_GT(*rate, 0);
    EXPECT_EQ(*gpu->FreeBytes(), free);
  }
}

TEST(GpuRatesTest, ACardWithoutRoomSaysSo) {
  const std::shared_ptr<gpu::Runtime> gpu = gpu::MakeEmulatedRuntime({.memory_bytes = 1 << 16});
  EXPECT_TRUE(absl::IsResourceExhausted(MeasureProductRate(gpu, {}).status()));
}

}  // namespace
}  // namespace bellwether
