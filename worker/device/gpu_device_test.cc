#include "worker/device/gpu_device.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
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

// Whoever plans for another class would get other bits.
TEST(GpuDeviceTest, AnotherNumericClassIsRefused) {
  const ModelConfig config = {.layers = 1, .hidden = 32, .heads = 4, .kv_heads = 4, .head_dim = 8};
  for (const auto& [card, level] : {std::pair{gpu::kEmulatedAmpere, "cuda_sm90"},
                                    {gpu::kEmulatedHopper, "cuda_sm80"},
                                    {gpu::kEmulatedHopper, "avx2"}}) {
    GpuDevice device(gpu::MakeEmulatedRuntime({.card = card}), /*threads=*/1);
    const absl::Status refused = device.NewOps({.config = &config, .kernel_level = level}).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                ::testing::HasSubstr(absl::StrCat("computes as ", card.numeric_class, ", not as ", level)));
  }
}

// A kernel that no code of the card's has cannot be asked for.
TEST(GpuDeviceTest, OnlyHopperHasTheKernelsOfHopper) {
  GpuDevice device(gpu::MakeEmulatedRuntime({.card = gpu::kEmulatedBlackwell}), /*threads=*/1);
  gpu::LaunchList list;
  list.Add(gpu::Kernel::attend_tile_4, {.threads = 256}, gpu::AttentionArgs{});
  device.runtime().Run(list);
  EXPECT_THAT(std::string(device.runtime().Synchronize().message()),
              ::testing::HasSubstr("attend_tile_4 is compiled for Hopper only"));
}

class SlotsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kBytes = 4096;

  void SetUp() override {
    auto ops = device_.NewOps({.config = &config_,
                               .kernel_level = "cuda_sm90",
                               .rank = {.slices = {0, 4}},
                               .layers = 1,
                               .kv_blocks = 1,
                               .context_tokens = 32,
                               .step_tokens = 1});
    ASSERT_TRUE(ops.ok()) << ops.status();
    ops_ = *std::move(ops);
    const auto slots = ops_->ReserveSlots(2, kBytes);
    ASSERT_TRUE(slots.ok()) << slots.status();
    EXPECT_TRUE(*slots);
  }
  absl::Span<std::byte> Image(int value) {
    images_.emplace_back(kBytes / sizeof(float), static_cast<float>(value));
    return {reinterpret_cast<std::byte*>(images_.back().data()), kBytes};
  }
  float First(const std::byte* slot) {
    float value = 0;
    EXPECT_TRUE(ops_->Read(reinterpret_cast<const float*>(slot), {&value, 1}).ok());
    return value;
  }

  const ModelConfig config_ = {
      .layers = 1, .hidden = 32, .heads = 4, .kv_heads = 4, .head_dim = 8, .ffn = 32, .vocab = 8};
  GpuDevice device_{gpu::MakeEmulatedRuntime({}), /*threads=*/1};
  std::unique_ptr<DeviceOps> ops_;
  std::deque<std::vector<float>> images_;
};

TEST_F(SlotsTest, AnImageIsThereOnceItsSlotIsUsed) {
  std::vector<std::byte*> where;
  for (int i = 0; i < 20; ++i) {
    where.push_back(ops_->FillSlot(i % 2, Image(i)));
    ops_->UseSlot(i % 2);
    EXPECT_EQ(First(where.back()), i);
    EXPECT_TRUE(*ops_->SlotFilled(i % 2));
    ASSERT_TRUE(ops_->ReleaseSlot(i % 2).ok());
  }
  EXPECT_EQ(where[0], where[2]);
  EXPECT_NE(where[0], where[1]);
}

// It lands when it likes: what the host's memory holds till then is what comes.
TEST_F(SlotsTest, WhoWritesToTheHostsMemoryTooEarlyIsFoundOut) {
  bool seen = false;
  for (int i = 0; i < 50; ++i) {
    const absl::Span<std::byte> image = Image(1);
    const std::byte* const slot = ops_->FillSlot(0, image);
    const bool filled = *ops_->SlotFilled(0);
    images_.back()[0] = 2;
    ops_->UseSlot(0);
    const float value = First(slot);
    if (filled) {
      EXPECT_EQ(value, 1);
    }
    seen |= value == 2;
    ASSERT_TRUE(ops_->ReleaseSlot(0).ok());
  }
  EXPECT_TRUE(seen);
}

TEST_F(SlotsTest, ASlotInUseIsNotFilled) {
  ops_->FillSlot(0, Image(1));
  ops_->UseSlot(0);
  ops_->FillSlot(0, Image(2));
  EXPECT_THAT(std::string(ops_->Finish().message()),
              ::testing::HasSubstr("slot 0 of weights is filled out of turn"));
}

TEST_F(SlotsTest, ASlotThatWasNotFilledIsNotUsed) {
  ops_->UseSlot(1);
  EXPECT_THAT(std::string(ops_->Finish().message()),
              ::testing::HasSubstr("slot 1 of weights is used out of turn"));
}

// A cache of what was packed for a CPU means nothing to a GPU.
TEST(GpuDeviceTest, ImagesAreNamedByTheirForm) {
  GpuDevice gpu(gpu::MakeEmulatedRuntime({}), /*threads=*/1);
  EXPECT_EQ(gpu.image_form().substr(0, 4), "gpu ");
}

}  // namespace
}  // namespace bellwether
