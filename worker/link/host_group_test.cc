#include "worker/link/host_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "worker/link/loopback.h"

namespace bellwether {
namespace {

// All ranks of one stage, joined by loopback links.
std::vector<std::unique_ptr<HostGroup>> MakeGroups(const std::vector<SliceRange>& rank_slices, int total,
                                                   absl::Duration wait_limit = absl::Seconds(30)) {
  const int ranks = static_cast<int>(rank_slices.size());
  std::vector<HostGroup::Options> options(ranks);
  for (int r = 0; r < ranks; ++r) {
    options[r] = {
        .stage = 1, .rank = r, .slices_total = total, .rank_slices = rank_slices, .cols_max = 100000};
    options[r].links.resize(ranks);
  }
  for (int a = 0; a < ranks; ++a) {
    for (int b = a + 1; b < ranks; ++b) {
      LoopbackOptions names{.first_name = "rank " + std::to_string(a),
                            .second_name = "rank " + std::to_string(b)};
      names.wait_limit = wait_limit;
      std::tie(options[a].links[b], options[b].links[a]) = MakeLoopbackLinks(names);
    }
  }
  std::vector<std::unique_ptr<HostGroup>> groups;
  for (HostGroup::Options& option : options) {
    groups.push_back(std::make_unique<HostGroup>(std::move(option)));
  }
  return groups;
}

void OnEveryRank(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) threads.emplace_back(body, r);
  for (std::thread& thread : threads) thread.join();
}

// Values whose sum depends on the order of the additions.
float SliceValue(int slice, int64_t element) {
  const uint32_t hash = static_cast<uint32_t>(slice * 7919 + element) * 2654435761u;
  return (static_cast<int32_t>(hash) / 1e6f) / static_cast<float>(1 << (hash % 13));
}

float NodeSum(SliceRange node, int64_t element) {
  if (node.size() == 1) return SliceValue(node.begin, element);
  const int middle = SliceTreeMiddle(node);
  return NodeSum({node.begin, middle}, element) + NodeSum({middle, node.end}, element);
}

std::vector<float> RootsOf(SliceRange slices, int total, int64_t count) {
  std::vector<float> roots;
  for (const SliceRange& root : SubtreeRoots(slices, total)) {
    for (int64_t i = 0; i < count; ++i) roots.push_back(NodeSum(root, i));
  }
  return roots;
}

struct Split {
  int total;
  std::vector<int> bounds;  // of the ranks' slices
};

class HostGroupTest : public testing::TestWithParam<Split> {
 protected:
  std::vector<SliceRange> RankSlices() const {
    std::vector<SliceRange> slices;
    for (size_t r = 0; r + 1 < GetParam().bounds.size(); ++r) {
      slices.push_back({GetParam().bounds[r], GetParam().bounds[r + 1]});
    }
    return slices;
  }
};

TEST_P(HostGroupTest, SameBitsAsTheSerialTreeOnEveryRank) {
  const std::vector<SliceRange> slices = RankSlices();
  const int ranks = static_cast<int>(slices.size()), total = GetParam().total;
  auto groups = MakeGroups(slices, total);
  const std::vector<int> counts = {1, 2, 15, 17, 160, 1023, 4099, 16384, 16385, 40000, 300001};
  OnEveryRank(ranks, [&](int r) {
    uint64_t step = 0;
    for (int count : counts) {
      const std::vector<float> roots = RootsOf(slices[r], total, count);
      std::vector<float> out(count, -1);
      const MessageTag tag{.epoch = {1}, .step = {++step}, .rows = 1, .cols = count};
      const absl::Status status = groups[r]->AllReduce(tag, roots, absl::MakeSpan(out));
      ASSERT_TRUE(status.ok()) << status;
      for (int i = 0; i < count; ++i)
        ASSERT_EQ(out[i], NodeSum({0, total}, i)) << count << " floats, rank " << r;
    }
  });
}

TEST_P(HostGroupTest, SharesRowsOfAnyOwner) {
  const std::vector<SliceRange> slices = RankSlices();
  const int ranks = static_cast<int>(slices.size());
  auto groups = MakeGroups(slices, GetParam().total);
  auto value = [](int row, int col) { return row * 1000.0f + col; };
  struct Shape {
    int rows, cols;
  };
  OnEveryRank(ranks, [&](int r) {
    // Blocks of many rows, of two rows, and rows larger than a chunk and than a link's FIFO.
    for (const auto& [rows, cols] : {Shape{0, 8}, {1, 3}, {100, 70}, {33, 5000}, {5, 20000}, {7, 100000}}) {
      for (int pattern = 0; pattern < 3; ++pattern) {
        std::vector<int> owner(rows);
        for (int i = 0; i < rows; ++i)
          owner[i] = pattern == 0 ? i * 7 % ranks : pattern == 1 ? i * ranks / rows : ranks - 1;
        std::vector<float> data(static_cast<size_t>(rows) * cols, -1);
        for (int i = 0; i < rows; ++i) {
          for (int c = 0; c < cols && owner[i] == r; ++c) data[i * cols + c] = value(i, c);
        }
        const MessageTag tag{.epoch = {1}, .step = {1}, .rows = rows, .cols = cols};
        const absl::Status status = groups[r]->ShareRows(tag, owner, absl::MakeSpan(data));
        ASSERT_TRUE(status.ok()) << status;
        for (int i = 0; i < rows; ++i) {
          for (int c = 0; c < cols; ++c) ASSERT_EQ(data[i * cols + c], value(i, c)) << i << " " << c;
        }
      }
    }
  });
}

TEST_P(HostGroupTest, GathersColumnsOnRankZero) {
  const std::vector<SliceRange> slices = RankSlices();
  const int ranks = static_cast<int>(slices.size());
  auto groups = MakeGroups(slices, GetParam().total);
  OnEveryRank(ranks, [&](int r) {
    for (int64_t vocabulary : {3, 1000, 130001}) {
      std::vector<int64_t> bounds;  // uneven; small vocabularies leave ranks without columns
      for (int64_t i = 0; i <= ranks; ++i) bounds.push_back(vocabulary * i * i / (ranks * ranks));
      const int rows = 5;
      const int64_t begin = r == 0 ? 0 : bounds[r], width = r == 0 ? vocabulary : bounds[r + 1] - bounds[r];
      std::vector<float> data(rows * width, -1);
      for (int row = 0; row < rows; ++row) {
        for (int64_t c = bounds[r]; c < bounds[r + 1]; ++c) data[row * width + c - begin] = row * 1e6f + c;
      }
      const MessageTag tag{.epoch = {1}, .step = {1}, .rows = rows, .cols = static_cast<int32_t>(vocabulary)};
      const absl::Status status = groups[r]->GatherColumns(tag, bounds, absl::MakeSpan(data));
      ASSERT_TRUE(status.ok()) << status;
      for (int row = 0; row < rows && r == 0; ++row) {
        for (int64_t c = 0; c < vocabulary; ++c) ASSERT_EQ(data[row * vocabulary + c], row * 1e6f + c);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Splits, HostGroupTest,
                         testing::Values(Split{1, {0, 1}}, Split{16, {0, 16}}, Split{16, {0, 8, 16}},
                                         Split{16, {0, 1, 16}}, Split{16, {0, 9, 16}}, Split{2, {0, 1, 2}},
                                         Split{14, {0, 5, 9, 14}}, Split{16, {0, 4, 8, 12, 16}},
                                         Split{16, {0, 1, 8, 15, 16}}, Split{5, {0, 1, 2, 3, 4, 5}},
                                         Split{16, {0, 3, 6, 10, 13, 16}}),
                         [](const testing::TestParamInfo<Split>& info) {
                           std::string name = "slices";
                           for (int bound : info.param.bounds) name += "_" + std::to_string(bound);
                           return name;
                         });

TEST(HostGroup, AbortWakesEveryoneWhoWaits) {
  auto groups = MakeGroups({{0, 1}, {1, 2}, {2, 3}}, 3);
  OnEveryRank(3, [&](int r) {
    if (r == 0)
      return groups[0]->Abort(absl::AbortedError("epoch 7 has ended"));  // its peers never hear from it
    std::vector<float> roots(10), out(10);
    const absl::Status status =
        groups[r]->AllReduce({.epoch = {7}, .step = {1}, .rows = 2, .cols = 5}, roots, absl::MakeSpan(out));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank "));
    groups[r]->Abort(status);
  });
  std::vector<float> roots(10), out(10);
  EXPECT_EQ(groups[0]->AllReduce({.rows = 2, .cols = 5}, roots, absl::MakeSpan(out)).message(),
            "epoch 7 has ended");
}

TEST(HostGroup, RanksInDifferentStepsFindOut) {
  auto groups = MakeGroups({{0, 1}, {1, 2}}, 2);
  OnEveryRank(2, [&](int r) {
    std::vector<float> roots(10), out(10);
    const MessageTag tag{.epoch = {7}, .step = {100u + r}, .layer = 3, .rows = 2, .cols = 5};
    const absl::Status status = groups[r]->AllReduce(tag, roots, absl::MakeSpan(out));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(testing::HasSubstr("step 100"), testing::HasSubstr("step 101"),
                               testing::HasSubstr(r == 0 ? "rank 1" : "rank 0")));
  });
}

TEST(HostGroup, SilentPeerIsNamedAfterTheWaitLimit) {
  auto groups = MakeGroups({{0, 1}, {1, 2}}, 2, absl::Milliseconds(20));
  std::vector<float> roots(10), out(10);
  const absl::Status status =
      groups[0]->AllReduce({.epoch = {7}, .step = {1}, .rows = 2, .cols = 5}, roots, absl::MakeSpan(out));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("from rank 1"));
}

}  // namespace
}  // namespace bellwether
