#include "model/shapes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bellwether {
namespace {

using ::testing::HasSubstr;

TEST(ShapesTest, EveryNamedShapeIsValid) {
  EXPECT_EQ(ShapeNames().size(), 6u);
  for (const std::string& name : ShapeNames()) {
    absl::StatusOr<ModelConfig> config = ParseShape(name);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(config->eos.empty());
  }
  EXPECT_EQ(ParseShape("bloom-7b")->vocab, 250880);
  EXPECT_EQ(ParseShape("bloom-7b")->ffn, 16384);
  EXPECT_TRUE(ParseShape("bloom-7b")->alibi);
  EXPECT_EQ(ParseShape("llama-1.1b")->kv_heads, 4);
  EXPECT_TRUE(ParseShape("qwen2.5-7b")->qkv_bias);
  EXPECT_FALSE(ParseShape("qwen2.5-7b")->attention_output_bias);
  EXPECT_TRUE(ParseShape("qwen3-8b")->head_norm);
}

TEST(ShapesTest, Changes) {
  absl::StatusOr<ModelConfig> config =
      ParseShape("llama?hidden=60,layers=3,heads=6,kv_heads=2,ffn=77,vocab=33,positions=99,tied=1,bias=1");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 60);
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->heads, 6);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 10);
  EXPECT_EQ(config->ffn, 77);
  EXPECT_EQ(config->vocab, 33);
  EXPECT_EQ(config->max_positions, 99);
  EXPECT_TRUE(config->tied_head && config->qkv_bias && config->mlp_bias);
  EXPECT_EQ(ParseShape("llama?heads=8")->kv_heads, 8);  // a new head count leaves no sharing
  EXPECT_EQ(ParseShape("llama?hidden=63,head_dim=16")->head_dim, 16);
  EXPECT_EQ(ParseShape("bloom?hidden=40,heads=5")->ffn, 160);
  EXPECT_EQ(ParseShape("llama-7b?layers=2")->layers, 2);
}

TEST(ShapesTest, MistakesAreNamed) {
  const auto refusal = [](const std::string& text) {
    return std::string(ParseShape(text).status().message());
  };
  EXPECT_THAT(refusal("gpt"), HasSubstr("no shape 'gpt'; there are llama-1.1b"));
  EXPECT_THAT(refusal("llama?depth=3"), HasSubstr("'depth=3' is not one of hidden, layers"));
  EXPECT_THAT(refusal("llama?layers=x"), HasSubstr("'layers=x'"));
  EXPECT_THAT(refusal("llama?layers=-1"), HasSubstr("'layers=-1'"));
  EXPECT_THAT(refusal("llama?layers=0"), HasSubstr("layers is 0"));
  EXPECT_THAT(refusal("llama?heads=0"), HasSubstr("does not divide"));
  EXPECT_THAT(refusal("llama?hidden=63"), HasSubstr("63 does not divide by 4 heads"));
  EXPECT_THAT(refusal("llama?kv_heads=3"), HasSubstr("share 3 KV heads"));
  EXPECT_THAT(refusal("bloom?hidden=2000000000"), HasSubstr("hidden is 2000000000"));
}

}  // namespace
}  // namespace bellwether
