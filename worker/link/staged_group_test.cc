#include "worker/link/staged_group.h"

#include <thread>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/device/testing/far_device.h"
#include "worker/link/loopback.h"

namespace bellwether {
namespace {

const ModelConfig kConfig = {
    .layers = 1, .hidden = 32, .heads = 4, .kv_heads = 4, .head_dim = 8, .ffn = 64, .vocab = 10};
const std::vector<SliceRange> kRankSlices = {{0, 1}, {1, 3}, {3, 4}};  // with 1, 2 and 1 roots
constexpr int kRanks = 3;
constexpr int kFirstRoot[] = {0, 1, 3};

// One rank with its device: the middle one's memory is the host's, that of the others is not.
struct Rank {
  Rank(int rank, std::vector<std::unique_ptr<Link>> links) {
    const bool far = rank != 1;
    if (far) {
      device = std::make_unique<FarDevice>(1);
    } else {
      device = std::make_unique<CpuDevice>(1);
    }
    ops = *device->NewOps({.config = &kConfig,
                           .kernel_level = "portable",
                           .rank = {.slices = kRankSlices[rank]},
                           .layers = 1,
                           .kv_blocks = 1,
                           .step_tokens = 8,
                           .roots = {{0, 1}, {1, 2}, {2, 3}, {3, 4}}});
    HostGroup::Options options{.rank = rank,
                               .slices_total = 4,
                               .rank_slices = kRankSlices,
                               .links = std::move(links),
                               .cols_max = 100};
    if (far) {
      group = *StagedGroup::Create(std::move(options),
                                   {.reduce_floats = 40000, .share_floats = 5000, .gather_floats = 5000},
                                   ops.get());
    } else {
      group = std::make_unique<HostGroup>(std::move(options));
    }
  }
  float* Put(const std::vector<float>& values) {
    float* data = *ops->Allocate(static_cast<int64_t>(values.size()));
    EXPECT_TRUE(ops->Write(values, data).ok());
    return data;
  }
  std::vector<float> Get(const float* from, size_t count) {
    std::vector<float> values(count);
    EXPECT_TRUE(ops->Read(from, absl::MakeSpan(values)).ok());
    return values;
  }
  std::unique_ptr<Device> device;
  std::unique_ptr<DeviceOps> ops;
  std::unique_ptr<TensorParallelGroup> group;
};

class StagedGroupTest : public ::testing::Test {
 protected:
  StagedGroupTest() {
    std::vector<std::vector<std::unique_ptr<Link>>> links(kRanks);
    for (auto& row : links) row.resize(kRanks);
    for (int a = 0; a < kRanks; ++a) {
      for (int b = a + 1; b < kRanks; ++b) std::tie(links[a][b], links[b][a]) = MakeLoopbackLinks();
    }
    for (int r = 0; r < kRanks; ++r) ranks_.push_back(std::make_unique<Rank>(r, std::move(links[r])));
  }
  void OnEveryRank(const std::function<void(int, Rank&)>& body) {
    std::vector<std::thread> threads;
    for (int r = 0; r < kRanks; ++r) threads.emplace_back([&, r] { body(r, *ranks_[r]); });
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// Ranks on all kinds of devices sum, share and gather together.
TEST_F(StagedGroupTest, ReducesFewAndMany) {
  OnEveryRank([](int r, Rank& rank) {
    for (const int count : {1, 1000, 40000}) {
      std::vector<float> roots;
      for (int root = 0; root < kRankSlices[r].size(); ++root) {
        for (int i = 0; i < count; ++i) roots.push_back((kFirstRoot[r] + root + 1) * 1000 + i);
      }
      const float* in = rank.Put(roots);
      float* out = rank.Put(std::vector<float>(count, -1));
      const MessageTag tag{.epoch = {1}, .step = {1}, .rows = 1, .cols = count};
      const absl::Status status =
          rank.group->AllReduce(tag, absl::MakeConstSpan(in, roots.size()), absl::MakeSpan(out, count));
      ASSERT_TRUE(status.ok()) << status;
      const std::vector<float> sums = rank.Get(out, count);
      for (int i = 0; i < count; ++i) ASSERT_EQ(sums[i], 10000 + 4 * i) << count << " floats, rank " << r;
    }
  });
}

TEST_F(StagedGroupTest, SharesRows) {
  OnEveryRank([](int r, Rank& rank) {
    std::vector<int> owner(50);
    std::vector<float> rows, expected;
    for (int i = 0; i < 50; ++i) {
      owner[i] = i * 5 % kRanks;
      for (int col = 0; col < 100; ++col) {
        expected.push_back(i * 1000 + col);
        rows.push_back(owner[i] == r ? expected.back() : -1);
      }
    }
    float* data = rank.Put(rows);
    const MessageTag tag{.epoch = {1}, .step = {1}, .rows = 50, .cols = 100};
    const absl::Status status = rank.group->ShareRows(tag, owner, absl::MakeSpan(data, rows.size()));
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(rank.Get(data, rows.size()), expected);
  });
}

TEST_F(StagedGroupTest, GathersColumns) {
  OnEveryRank([](int r, Rank& rank) {
    const std::vector<int64_t> bounds = {0, 10, 11, 30};
    const int rows = 4;
    const int64_t first = r == 0 ? 0 : bounds[r], width = r == 0 ? 30 : bounds[r + 1] - bounds[r];
    std::vector<float> own(rows * width, -1);
    for (int row = 0; row < rows; ++row) {
      for (int64_t col = bounds[r]; col < bounds[r + 1]; ++col)
        own[row * width + col - first] = row * 100 + col;
    }
    float* data = rank.Put(own);
    const MessageTag tag{.epoch = {1}, .step = {1}, .rows = rows, .cols = 30};
    const absl::Status status = rank.group->GatherColumns(tag, bounds, absl::MakeSpan(data, own.size()));
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<float> all = rank.Get(data, own.size());
    if (r != 0) {
      EXPECT_EQ(all, own);
    }
    for (int row = 0; row < rows && r == 0; ++row) {
      for (int col = 0; col < 30; ++col) ASSERT_EQ(all[row * 30 + col], row * 100 + col);
    }
  });
}

TEST_F(StagedGroupTest, AbortWakesARankThatWaits) {
  OnEveryRank([](int r, Rank& rank) {
    if (r == 1) return rank.group->Abort(absl::AbortedError("epoch 7 has ended"));
    float* data = rank.Put({1, 2});
    const absl::Status status =
        rank.group->AllReduce({.epoch = {7}, .step = {1}, .rows = 1, .cols = 1}, absl::MakeConstSpan(data, 1),
                              absl::MakeSpan(data + 1, 1));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("by loopback"));
    rank.group->Abort(status);
  });
}

TEST(StagedGroup, SaysThatTheHostHasNoMemory) {
  CpuDevice device(1);
  auto ops = *device.NewOps({.config = &kConfig,
                             .kernel_level = "portable",
                             .rank = {.slices = {0, 2}},
                             .layers = 1,
                             .step_tokens = 8,
                             .roots = {{0, 2}, {2, 4}}});
  const auto group = StagedGroup::Create({.slices_total = 4, .rank_slices = {{0, 2}, {2, 4}}},
                                         {.reduce_floats = int64_t{1} << 50}, ops.get());
  EXPECT_EQ(group.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace bellwether
