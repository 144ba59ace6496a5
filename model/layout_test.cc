#include "model/layout.h"

#include <gtest/gtest.h>

namespace bellwether {
namespace {

ModelConfig Config(int layers, int heads, int kv_heads, int ffn, int vocab) {
  ModelConfig config;
  config.layers = layers;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = 8;
  config.hidden = heads * 8;
  config.ffn = ffn;
  config.vocab = vocab;
  config.max_positions = 64;
  return config;
}

TEST(SlicesTest, CoverHeadsAndFfnOnceForEveryShape) {
  for (int heads : {1, 2, 3, 5, 9, 15, 16, 17, 32, 40, 71}) {
    for (int ffn : {1, 31, 32, 33, 172, 511, 1536, 11008}) {
      const ModelConfig config = Config(1, heads, 1, ffn, 32);
      const int slices = SliceCount(config);
      EXPECT_EQ(slices, std::min(16, heads));
      int64_t head = 0, column = 0;
      for (int i = 0; i < slices; ++i) {
        const Range heads_here = SliceHeads(config, {i, i + 1});
        EXPECT_EQ(heads_here.begin, head);
        EXPECT_GT(heads_here.size(), 0);
        head = heads_here.end;
        const Range columns = SliceFfn(config, {i, i + 1});
        EXPECT_EQ(columns.begin, column);
        EXPECT_GE(columns.size(), 0);
        EXPECT_TRUE(columns.begin % 32 == 0 || columns.size() == 0);
        column = columns.end;
      }
      EXPECT_EQ(head, heads);
      EXPECT_EQ(column, ffn);
    }
  }
}

TEST(SlicesTest, KvHeadsAreThoseTheQueryHeadsRead) {
  const ModelConfig config = Config(1, 8, 2, 64, 32);  // four query heads read one KV head
  EXPECT_EQ(SliceKvHeads(config, {0, 8}), (Range{0, 2}));
  EXPECT_EQ(SliceKvHeads(config, {0, 4}), (Range{0, 1}));
  EXPECT_EQ(SliceKvHeads(config, {4, 8}), (Range{1, 2}));
  EXPECT_EQ(SliceKvHeads(config, {3, 5}), (Range{0, 2}));  // both: a KV head can be on several ranks
  EXPECT_EQ(SliceKvHeads(config, {5, 6}), (Range{1, 2}));
}

TEST(LayoutTest, TheFlatOrderGoesStageByStage) {
  const Layout layout = {
      .stages = {{.ranks = std::vector<RankLayout>(3)}, {.ranks = std::vector<RankLayout>(2)}}};
  EXPECT_EQ(FlatIndex(layout, 0, 2), 2);
  EXPECT_EQ(FlatIndex(layout, 1, 0), 3);
  EXPECT_EQ(FlatIndex(layout, 1, 1), layout.workers() - 1);
}

TEST(LayoutTest, EvenLayoutsAreValidForEveryDegree) {
  for (int vocab : {1, 15, 160, 250880}) {
    const ModelConfig config = Config(7, 9, 3, 172, vocab);
    for (int stages = 1; stages <= 7; ++stages) {
      for (int ranks = 1; ranks <= 9; ++ranks) {
        absl::StatusOr<Layout> layout = EvenLayout(config, stages, ranks);
        ASSERT_TRUE(layout.ok()) << layout.status();
        EXPECT_EQ(layout->workers(), stages * ranks);
        EXPECT_TRUE(Validate(*layout, config).ok()) << Validate(*layout, config);
      }
    }
  }
}

TEST(LayoutTest, MoreStagesOrRanksThanThereIsToSplitAreRefused) {
  const ModelConfig config = Config(2, 3, 3, 64, 32);
  EXPECT_EQ(EvenLayout(config, 3, 1).status().message(), "a model of 2 layers splits into 1-2 stages, not 3");
  EXPECT_EQ(EvenLayout(config, 1, 4).status().message(),
            "a model of 3 heads splits into 1-3 tensor-parallel ranks, not 4");
  EXPECT_FALSE(EvenLayout(config, 0, 1).ok());
  EXPECT_FALSE(EvenLayout(config, 1, 0).ok());
}

TEST(LayoutTest, GapsOverlapsAndEmptyPartsAreRefused) {
  const ModelConfig config = Config(4, 4, 4, 64, 32);
  const Layout good = *EvenLayout(config, 2, 2);
  const auto refused = [&](auto damage) {
    Layout layout = good;
    damage(layout);
    return !Validate(layout, config).ok();
  };
  EXPECT_TRUE(refused([](Layout& l) { l.stages.clear(); }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages.pop_back(); }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].layers.end = 1; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[1].layers = {2, 5}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks.clear(); }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[0].slices = {0, 0}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[1].slices = {1, 4}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[1].slices = {2, 3}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[1].embedding_rows = {17, 32}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[1].embedding_rows = {16, 33}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[0].ranks[1].head_rows = {0, 32}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[1].ranks[0].head_rows = {0, 8}; }));
  EXPECT_TRUE(refused([](Layout& l) { l.stages[1].ranks[1].embedding_rows = {0, 32}; }));
}

// Where a rank's columns of the logits go is read off their ends: with {0, 0} for the last rank there was no
// room for any.
TEST(LayoutTest, EmptyVocabularyRangesLieWhereTheOnesBeforeEnd) {
  const ModelConfig config = Config(4, 4, 4, 64, 32);
  Layout layout = *EvenLayout(config, 1, 2);
  layout.stages[0].ranks[0].head_rows = {0, 32};
  layout.stages[0].ranks[1].head_rows = {32, 32};
  EXPECT_TRUE(Validate(layout, config).ok());
  layout.stages[0].ranks[1].head_rows = {0, 0};
  EXPECT_EQ(
      Validate(layout, config),
      absl::InvalidArgumentError("layout, stage 0: head rows continue at 0 but the ranks before end at 32"));
}

TEST(LayoutTest, UnevenLayoutsWithEmptyVocabularyRangesAreValid) {
  const ModelConfig config = Config(4, 4, 2, 64, 32);
  Layout layout;
  layout.stages.resize(2);
  layout.stages[0] = {{0, 3}, {{{0, 1}, {0, 32}, {}}, {{1, 4}, {32, 32}, {}}}};
  layout.stages[1] = {{3, 4}, {{{0, 4}, {}, {0, 32}}}};
  EXPECT_TRUE(Validate(layout, config).ok()) << Validate(layout, config);
  EXPECT_EQ(Describe(layout), "2 stages: layers 0-2 x 2 ranks, layers 3-3 x 1 rank");
}

}  // namespace
}  // namespace bellwether
