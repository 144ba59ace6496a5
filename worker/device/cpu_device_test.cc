#include "worker/device/cpu_device.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/device/testing/far_device.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const ModelConfig kConfig = {
    .layers = 2, .hidden = 4, .heads = 4, .kv_heads = 2, .head_dim = 2, .ffn = 8, .vocab = 10};

Device::OpsOptions Options() {
  return {.config = &kConfig,
          .kernel_level = "portable",
          .rank = {.slices = {0, 4}},
          .layers = 2,
          .kv_blocks = 3,
          .context_tokens = 64,
          .step_tokens = 8,
          .roots = {{0, 2}, {2, 3}, {3, 4}}};
}

std::vector<float> ReadBack(DeviceOps& ops, const float* from, size_t count) {
  std::vector<float> values(count);
  const absl::Status status = ops.Read(from, absl::MakeSpan(values));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

// Operations that only some layouts and models use, on the device that works in place and on one that does
// not.
class DeviceOpsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      device_ = std::make_unique<FarDevice>(/*threads=*/2);
    } else {
      device_ = std::make_unique<CpuDevice>(/*threads=*/2);
    }
    auto ops = device_->NewOps(Options());
    ASSERT_TRUE(ops.ok()) << ops.status();
    ops_ = *std::move(ops);
  }
  float* Put(const std::vector<float>& values) {
    float* data = *ops_->Allocate(static_cast<int64_t>(values.size()));
    EXPECT_TRUE(ops_->Write(values, data).ok());
    return data;
  }
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceOps> ops_;
};

TEST_P(DeviceOpsTest, RootsAreSummedInTreeOrder) {
  const float* roots[] = {Put({1, 1}), Put({1e8f, 2}), Put({-1e8f, 3})};
  float* out = Put({7, 7});
  ops_->SumRoots(roots, 2, out);
  EXPECT_THAT(ReadBack(*ops_, out, 2), ElementsAre(1, 6)) << "from left to right it would be 0, 6";
}

TEST_P(DeviceOpsTest, PicksRows) {
  const float* x = Put({0, 1, 10, 11, 20, 21});
  float* out = Put({9, 9, 9, 9});
  std::vector<int32_t> picks = {2, 0};
  ops_->PickRows({x, 3, 2}, picks, 2, {out, 2, 2});
  picks = {1, 1};  // was read before PickRows returned
  EXPECT_THAT(ReadBack(*ops_, out, 4), ElementsAre(20, 21, 0, 1));
}

TEST_P(DeviceOpsTest, PicksColumns) {
  auto store = *device_->NewWeightStore({}, WeightHome::kDevice, /*with_image=*/false);
  const DeviceVector columns = *store->Keep({2, 0, 1});
  const float* x = Put({0, 1, 2, 9, 10, 11, 12, 9});
  float* out = Put({9, 9, 9, 9, 9, 9});
  ops_->PickColumns({x, 2, 4}, columns, {out, 2, 3});
  EXPECT_THAT(ReadBack(*ops_, out, 6), ElementsAre(2, 0, 1, 12, 10, 11));
}

TEST_P(DeviceOpsTest, TheBiasIsAddedToTheSumFirst) {
  auto store = *device_->NewWeightStore({}, WeightHome::kDevice, /*with_image=*/false);
  const DeviceVector bias = *store->Keep({-1e8f, 0, 1, 2});
  float* residual = Put({1, 1, 2, 3});
  ops_->Add({residual, 1, 4}, {Put({1e8f, 10, 20, 30}), 1, 4}, bias, {residual, 1, 4});
  EXPECT_THAT(ReadBack(*ops_, residual, 4), ElementsAre(1, 11, 23, 35));
}

TEST_P(DeviceOpsTest, EmbedsTheTokensThatItOwns) {
  const kernels::MatrixSpec spec = {.rows = 2, .cols = 4};
  auto store = *device_->NewWeightStore({&spec, 1}, WeightHome::kDevice, /*with_image=*/false);
  const auto embedding = *store->Pack(spec, [](Range, kernels::PackedMatrix& packed) {
    packed.SetRow(0, std::vector<float>{1, 2, 3, 4});
    packed.SetRow(1, std::vector<float>{5, 6, 7, 8});
    return absl::OkStatus();
  });
  float* out = Put(std::vector<float>(16, -1));
  const SequenceState sequence;
  const Batch batch = {.runs = {{.sequence = &sequence, .count = 4}}, .tokens = {4, 5, 6, 3}};
  ops_->Begin(batch);
  ops_->Embed(*embedding, /*first=*/4, {out, 4, 4});
  EXPECT_THAT(ReadBack(*ops_, out, 16), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, -1, -1, -1, -1, -1, -1, -1, -1));
}

TEST_P(DeviceOpsTest, HostWorkIsDoneOnceAnItem) {
  std::vector<int> done(1000);
  ops_->OnHost(1000, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++done[i];
  });
  EXPECT_EQ(done, std::vector<int>(1000, 1));
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceOpsTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "far" : "cpu"; });

TEST(CpuDevice, SaysWhatItCannotDo) {
  CpuDevice device(/*threads=*/1);
  Device::OpsOptions options = Options();
  options.kernel_level = "abacus";
  EXPECT_THAT(std::string(device.NewOps(options).status().message()), HasSubstr("abacus"));

  options = Options();
  options.kv_blocks = std::numeric_limits<int32_t>::max();
  options.layers = 1 << 20;
  const absl::Status kv = device.NewOps(options).status();
  EXPECT_EQ(kv.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(kv.message()), HasSubstr("KV cache"));

  auto ops = device.NewOps(Options());
  ASSERT_TRUE(ops.ok()) << ops.status();
  EXPECT_EQ((*ops)->Allocate(int64_t{1} << 50).status().code(), absl::StatusCode::kResourceExhausted);
}

// The tests that use FarDevice show something only if this is so.
TEST(FarDeviceDeathTest, TheHostCannotFollowItsPointers) {
  FarDevice device(/*threads=*/1);
  auto ops = device.NewOps(Options());
  ASSERT_TRUE(ops.ok()) << ops.status();
  volatile float* far = *(*ops)->Allocate(1);
  EXPECT_DEATH(*far = 1, "");
}

}  // namespace
}  // namespace bellwether
