#include "coordinator/layer_split.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

TEST(LayerSplitTest, EqualStagesGetEqualParts) {
  const StageTime one_each = [](int, Range layers) { return std::optional<double>(layers.size()); };
  EXPECT_THAT(*SplitLayers(8, 2, one_each), ElementsAre(Range{0, 4}, Range{4, 8}));
  EXPECT_THAT(*SplitLayers(3, 3, one_each), ElementsAre(Range{0, 1}, Range{1, 2}, Range{2, 3}));
  const auto uneven = *SplitLayers(8, 3, one_each);
  for (const Range& layers : uneven) EXPECT_GE(layers.size(), 2);
  EXPECT_FALSE(SplitLayers(2, 3, one_each).has_value());
}

TEST(LayerSplitTest, WhatElseAStageDoesCosts) {
  // The last stage has a head worth three layers; stage 1 is twice as fast.
  const StageTime time = [](int stage, Range layers) {
    const double work = static_cast<double>(layers.size()) + (stage == 2 ? 3 : 0);
    return std::optional<double>(stage == 1 ? work / 2 : work);
  };
  EXPECT_THAT(*SplitLayers(13, 3, time), ElementsAre(Range{0, 4}, Range{4, 12}, Range{12, 13}));
}

TEST(LayerSplitTest, MemoryLimitsAStage) {
  const StageTime time = [](int stage, Range layers) -> std::optional<double> {
    if (stage == 0 && layers.size() > 2) return std::nullopt;
    return static_cast<double>(layers.size());
  };
  EXPECT_THAT(*SplitLayers(8, 2, time), ElementsAre(Range{0, 2}, Range{2, 8}));
  const StageTime nothing_fits = [](int, Range) { return std::optional<double>(); };
  EXPECT_FALSE(SplitLayers(8, 2, nothing_fits).has_value());
}

}  // namespace
}  // namespace bellwether
