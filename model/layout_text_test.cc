#include "model/layout_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

ModelConfig Config() {
  return {.layers = 5,
          .hidden = 64,
          .heads = 8,
          .kv_heads = 8,
          .head_dim = 8,
          .ffn = 96,
          .vocab = 100,
          .max_positions = 64};
}

TEST(LayoutText, EvenAndUnevenStages) {
  const absl::StatusOr<Layout> layout = ParseLayout(Config(), "2x2,3x5+3");
  ASSERT_TRUE(layout.ok()) << layout.status();
  ASSERT_EQ(layout->workers(), 4);
  EXPECT_EQ(layout->stages[0].layers, (Range{0, 2}));
  EXPECT_EQ(layout->stages[1].layers, (Range{2, 5}));
  EXPECT_EQ(layout->stages[0].ranks[1].slices, (SliceRange{4, 8}));
  EXPECT_EQ(layout->stages[1].ranks[0].slices, (SliceRange{0, 5}));
  EXPECT_EQ(layout->stages[1].ranks[1].slices, (SliceRange{5, 8}));
  EXPECT_EQ(*ParseLayout(Config(), "5x3"), *EvenLayout(Config(), 1, 3));
}

TEST(LayoutText, WhatDoesNotAddUpIsSaid) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "LAYERSxRANKS"},       {"5", "LAYERSxRANKS"},      {"4x2", "covers 4 layers"},
      {"6x1", "covers 6 layers"}, {"5x9", "8 slices"},        {"5x4+3", "covers 7 of"},
      {"5x4+5", "add up"},        {"5x0", "number of ranks"}, {"0x1,5x1", "LAYERSxRANKS"},
      {"5x1,", "LAYERSxRANKS"},   {"5x-1+9", "add up"},
  };
  for (const auto& [text, message] : cases) {
    const absl::StatusOr<Layout> layout = ParseLayout(Config(), text);
    ASSERT_FALSE(layout.ok()) << text;
    EXPECT_THAT(std::string(layout.status().message()), HasSubstr(message)) << text;
  }
}

}  // namespace
}  // namespace bellwether
