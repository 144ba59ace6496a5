#include "model/shard_size.h"

#include <gtest/gtest.h>

#include "model/shapes.h"

namespace bellwether {
namespace {

constexpr TensorFormat kBf16 = {.format = WeightFormat::kBF16};

TEST(PackedFormatTest, QuantizeChangesFloatMatricesOnly) {
  const TensorFormat int8 = QuantizeFormat(WeightFormat::kInt8), int4 = QuantizeFormat(WeightFormat::kInt4);
  const TensorFormat stored = {.format = WeightFormat::kInt4, .group = 32, .has_offset = true};
  EXPECT_EQ(PackedFormat({TensorRole::kUp, 3}, kBf16, Quantize::kNone), kBf16);
  EXPECT_EQ(PackedFormat({TensorRole::kUp, 3}, kBf16, Quantize::kInt8), int8);
  EXPECT_EQ(PackedFormat({TensorRole::kUp, 3}, kBf16, Quantize::kInt4), int4);
  EXPECT_EQ(PackedFormat({TensorRole::kUp, 3}, stored, Quantize::kInt8), stored);
  EXPECT_EQ(PackedFormat({TensorRole::kEmbedding}, kBf16, Quantize::kInt4), int8);
  EXPECT_EQ(PackedFormat({TensorRole::kHead}, kBf16, Quantize::kInt4), int8);
  EXPECT_EQ(PackedFormat({TensorRole::kUp, 3, true}, kBf16, Quantize::kInt4), TensorFormat{});
  for (const TensorRole norm : {TensorRole::kEmbeddingNorm, TensorRole::kAttentionNorm, TensorRole::kMlpNorm,
                                TensorRole::kFinalNorm}) {
    EXPECT_EQ(PackedFormat({norm}, kBf16, Quantize::kInt8), TensorFormat{});
    EXPECT_EQ(PackedFormat({norm}, kBf16, Quantize::kNone), TensorFormat{});
  }
}

TEST(ShardSizeTest, OneWorkerHoldsWhatTheParametersTake) {
  const ModelConfig config = *ParseShape("llama-7b");
  const Layout layout = *EvenLayout(config, 1, 1);
  const auto bytes = [&](const TensorFormat& format, Quantize quantize) {
    return ShardBytes(config, UniformFormats(format), quantize, layout.stages[0], 0, {true, true});
  };
  // 32 layers of 4 * 4096^2 + 3 * 4096 * 11008 weights, embedding and head of 32000 * 4096, 65 norms in fp32.
  const int64_t layer_weights = int64_t{32} * (4 * 4096 * 4096 + 3 * 4096 * 11008);
  const int64_t end_weights = int64_t{2} * 32000 * 4096, norms = int64_t{65} * 4096 * 4;
  EXPECT_EQ(bytes(kBf16, Quantize::kNone), 2 * (layer_weights + end_weights) + norms);
  EXPECT_EQ(bytes({}, Quantize::kNone), 4 * (layer_weights + end_weights) + norms);
  EXPECT_EQ(bytes(kBf16, Quantize::kInt8), (layer_weights + end_weights) / 32 * 34 + norms);
  EXPECT_EQ(bytes(kBf16, Quantize::kInt4), layer_weights / 32 * 18 + end_weights / 32 * 34 + norms);
}

TEST(ShardSizeTest, PaddingIsCounted) {
  // One head of 6 in hidden 5: every matrix has odd sizes.
  const ModelConfig config = *ParseShape("llama?hidden=5,layers=1,heads=1,head_dim=6,ffn=7,vocab=3,tied=1");
  const Layout layout = *EvenLayout(config, 1, 1);
  const auto bytes = [&](const TensorFormat& format) {
    return ShardBytes(config, UniformFormats(format), Quantize::kNone, layout.stages[0], 0, {true, true});
  };
  // Rows are padded to 16; columns to 2 (floats) or 8 (int8). q, k, v, gate, up and the embedding have 5
  // columns, the attention's output 6 and down 7. The tied head is the embedding.
  const int64_t norms = 3 * 5 * 4;
  EXPECT_EQ(bytes({}), 16 * 4 * (6 * 6 + 6 + 8) + norms);
  EXPECT_EQ(bytes(QuantizeFormat(WeightFormat::kInt8)), 16 * (8 * (8 + 2)) + norms);
}

TEST(ShardSizeTest, GroupsThatSlicesCutRepeatTheirScales) {
  // Two heads of 48: the second slice begins in the middle of a group of 32 and ends with one.
  const ModelConfig config = *ParseShape("llama?hidden=96,layers=1,heads=2,ffn=32,vocab=16");
  const TensorFormat format = {.format = WeightFormat::kInt8, .group = 32};  // fp32 scales
  Layout layout = *EvenLayout(config, 1, 2);
  // Attention output of one slice, 96 rows: 48 columns are blocks of 32 + 16, then 16 + 16 + 16 (activation
  // groups count from the slice, weight groups from the row), so 2 scales each.
  const int64_t output = 96 * (48 + 2 * 4);
  const int64_t qkv = 3 * 48 * (96 + 3 * 4);
  const int64_t mlp_first = 2 * 0, mlp_second = 2 * 32 * (96 + 3 * 4) + 96 * (32 + 4);
  const int64_t vocabulary_first = 2 * 0, vocabulary_second = 2 * 16 * (96 + 3 * 4);
  const int64_t norms = 3 * 96 * 4;
  EXPECT_EQ(ShardBytes(config, UniformFormats(format), Quantize::kNone, layout.stages[0], 0, {true, true}),
            output + qkv + mlp_first + vocabulary_first + norms);
  EXPECT_EQ(ShardBytes(config, UniformFormats(format), Quantize::kNone, layout.stages[0], 1, {true, true}),
            output + qkv + mlp_second + vocabulary_second + norms);
}

TEST(ShardSizeTest, ATokenReadsEverythingButTheEmbedding) {
  const ModelConfig config = *ParseShape("llama?hidden=64,layers=2,heads=4,kv_heads=2,ffn=172,vocab=160");
  const UniformFormats formats(kBf16);
  const Layout layout = *EvenLayout(config, 1, 1);
  const int64_t shard = ShardBytes(config, formats, Quantize::kNone, layout.stages[0], 0, {true, true});
  EXPECT_EQ(BytesReadPerToken(config, formats, Quantize::kNone, layout.stages[0], 0, true),
            shard - 160 * 64 * 2 + 64 * 2);
}

TEST(ShardSizeTest, RanksShareTheOperations) {
  const ModelConfig config = *ParseShape("llama?hidden=64,layers=3,heads=4,kv_heads=4,ffn=172,vocab=160");
  const int64_t layer = 4 * 64 * 64 + 3 * 64 * 172;
  EXPECT_EQ(OperationsPerToken(config, EvenLayout(config, 1, 1)->stages[0], 0, /*last_stage=*/true),
            2 * (3 * layer + 64 * 160));
  const Layout layout = *EvenLayout(config, 2, 3);
  int64_t sum = 0;
  for (int rank = 0; rank < 3; ++rank) {
    sum += OperationsPerToken(config, layout.stages[0], rank, /*last_stage=*/false) +
           OperationsPerToken(config, layout.stages[1], rank, /*last_stage=*/true);
  }
  EXPECT_EQ(sum, 2 * (3 * layer + 64 * 160));
}

TEST(ShardSizeTest, TiedRowsAreHeldOnceOnlyWhereTheyAreTheSame) {
  const ModelConfig config = *ParseShape("llama?vocab=160,tied=1");
  const UniformFormats formats(kBf16);
  Layout layout = *EvenLayout(config, 1, 2);
  const auto bytes = [&] {
    return ShardBytes(config, formats, Quantize::kNone, layout.stages[0], 0, {true, true});
  };
  const int64_t shared = bytes();
  layout.stages[0].ranks[0].head_rows = {0, 96};
  EXPECT_EQ(bytes(), shared + 96 * 64 * 2);
}

TEST(ShardSizeTest, KvBlocksCountTheHeadsOfTheRank) {
  const ModelConfig config = *ParseShape("llama?hidden=64,layers=4,heads=8,kv_heads=2,ffn=172,vocab=160");
  Layout layout = *EvenLayout(config, 2, 3);  // slices 0-2, 2-5, 5-8: the second rank reads both KV heads
  EXPECT_EQ(KvBlockBytes(config, DType::kBF16, layout.stages[0], 0), 2 * 1 * 2 * 32 * 8 * 2);
  EXPECT_EQ(KvBlockBytes(config, DType::kBF16, layout.stages[0], 1), 2 * 2 * 2 * 32 * 8 * 2);
  EXPECT_EQ(KvBlockBytes(config, DType::kF32, layout.stages[0], 2), 2 * 1 * 2 * 32 * 8 * 4);
}

// GPTQ's layers, one of them left in fp32, and a head in fp16.
class MixedFormats : public TensorFormats {
 public:
  TensorFormat FormatOf(const TensorKey& key) const override {
    if (key.role == TensorRole::kHead || key.role == TensorRole::kEmbedding)
      return {.format = WeightFormat::kF16};
    if (key.role == TensorRole::kDown && key.layer == 3) return {};
    return QuantizeFormat(WeightFormat::kInt4);
  }
};

TEST(ShardSizeTest, LimbsOfAStageAreThoseOfItsMostPreciseProduct) {
  ModelConfig config = *ParseShape("llama?layers=6");
  const auto limbs = [&](Range layers, bool last_stage, Quantize quantize = Quantize::kNone) {
    return MostGpuLimbs(config, MixedFormats(), quantize, layers, last_stage);
  };
  EXPECT_EQ(limbs({0, 3}, false), 1)
      << "rows of an embedding are copied, norms are not multiplied by matrices";
  EXPECT_EQ(limbs({2, 4}, false), 3);
  EXPECT_EQ(limbs({4, 6}, false), 1);
  EXPECT_EQ(limbs({4, 6}, true), 2);
  EXPECT_EQ(limbs({2, 6}, true, Quantize::kInt8), 1);
  config.tied_head = true;
  EXPECT_EQ(limbs({4, 6}, true), 2) << "the embedding is the head";
}

TEST(ShardSizeTest, CheckpointFormatsAreThoseOfItsTable) {
  auto checkpoint = Checkpoint::Open("random:llama:int4");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const CheckpointFormats formats(**checkpoint);
  EXPECT_EQ(formats.FormatOf({TensorRole::kUp, 0}).format, WeightFormat::kInt4);
  EXPECT_EQ(formats.FormatOf({TensorRole::kUp, 99}), TensorFormat{});
}

}  // namespace
}  // namespace bellwether
