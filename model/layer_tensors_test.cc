#include "model/layer_tensors.h"

#include <gtest/gtest.h>

#include "model/shapes.h"

namespace bellwether {
namespace {

std::vector<TensorRole> Roles(const ModelConfig& config) {
  std::vector<TensorRole> roles;
  for (const LayerTensor& tensor : LayerTensors(config)) roles.push_back(tensor.role);
  return roles;
}

TEST(LayerTensorsTest, FamiliesDifferInTheGateAndInBiases) {
  using enum TensorRole;
  const ModelConfig llama = *ParseShape("llama-7b"), bloom = *ParseShape("bloom-7b");
  EXPECT_EQ(Roles(llama), (std::vector{kAttentionNorm, kQuery, kKey, kValue, kAttentionOutput, kMlpNorm,
                                       kGate, kUp, kDown}));
  EXPECT_EQ(Roles(bloom),
            (std::vector{kAttentionNorm, kQuery, kKey, kValue, kAttentionOutput, kMlpNorm, kUp, kDown}));
  EXPECT_EQ(Roles(*ParseShape("qwen3-8b")),
            (std::vector{kAttentionNorm, kQuery, kKey, kValue, kQueryNorm, kKeyNorm, kAttentionOutput,
                         kMlpNorm, kGate, kUp, kDown}));
  for (const LayerTensor& tensor : LayerTensors(llama)) EXPECT_FALSE(tensor.bias) << Name({tensor.role});
  for (const LayerTensor& tensor : LayerTensors(bloom)) EXPECT_TRUE(tensor.bias) << Name({tensor.role});
  for (const LayerTensor& tensor : LayerTensors(bloom))
    EXPECT_EQ(tensor.split == Split::kNone || tensor.split == Split::kHeadDim, IsNorm(tensor.role))
        << Name({tensor.role});
}

// Query heads share KV heads here, slices of the MLP are uneven, and one is empty.
TEST(LayerTensorsTest, WhatSlicesHoldIsTheWhole) {
  const ModelConfig config =
      *ParseShape("qwen3?hidden=96,layers=1,heads=6,kv_heads=3,head_dim=16,ffn=136,vocab=16");
  const int slices = SliceCount(config);
  ASSERT_EQ(slices, 6);
  for (const LayerTensor& tensor : LayerTensors(config)) {
    const std::string name = Name({tensor.role});
    const TensorPart whole = PartOf(config, tensor.split, {0, slices});
    for (int cut = 1; cut < slices; ++cut) {
      const TensorPart left = PartOf(config, tensor.split, {0, cut});
      const TensorPart right = PartOf(config, tensor.split, {cut, slices});
      if (IsNorm(tensor.role) || IsRowParallel(tensor.split)) {
        EXPECT_EQ(left.rows, whole.rows) << name;
        EXPECT_EQ(right.rows, whole.rows) << name;
      } else {
        EXPECT_EQ(left.rows.begin, 0) << name;
        // A KV head that both sides read is on both.
        if (tensor.split == Split::kKvRows) {
          EXPECT_GE(left.rows.end, right.rows.begin) << name;
        } else {
          EXPECT_EQ(left.rows.end, right.rows.begin) << name;
        }
        EXPECT_EQ(right.rows.end, whole.rows.end) << name;
      }
      if (IsRowParallel(tensor.split)) {
        EXPECT_EQ(left.cols.end, right.cols.begin) << name;
        EXPECT_EQ(left.slice_bounds.back(), right.slice_bounds.front()) << name;
        EXPECT_EQ(right.cols.end, whole.cols.end) << name;
      } else {
        EXPECT_EQ(left.cols, whole.cols) << name;
      }
    }
  }
  const TensorPart down = PartOf(config, Split::kFfnColumns, {0, slices});
  EXPECT_EQ(down.slice_bounds, (std::vector<int64_t>{0, 0, 32, 64, 96, 128, 136}));
  EXPECT_EQ(PartOf(config, Split::kQueryColumns, {1, 3}).slice_bounds, (std::vector<int64_t>{16, 32, 48}));
  EXPECT_EQ(PartOf(config, Split::kKvRows, {1, 3}).rows, (Range{0, 32}));
}

}  // namespace
}  // namespace bellwether
