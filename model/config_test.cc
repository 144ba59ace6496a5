#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig Small() {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 64;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.ffn = 100;
  config.vocab = 160;
  config.max_positions = 128;
  return config;
}

std::string Refusal(const std::function<void(ModelConfig&)>& damage) {
  ModelConfig config = Small();
  damage(config);
  return std::string(Validate(config).message());
}

TEST(ConfigTest, NumbersThatMakeNoSenseAreRefusedByName) {
  EXPECT_TRUE(Validate(Small()).ok()) << Validate(Small());
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.layers = 0; }), "layers is 0; 1 to 1024 is possible");
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.hidden = 70000; }), "hidden is 70000; 1 to 65536 is possible");
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.kv_heads = 5; }), "kv_heads is 5; 1 to 4 is possible");
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.kv_heads = 3; }), "4 heads cannot share 3 KV heads evenly");
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.head_dim = 15; }), HasSubstr("head_dim 15 is odd"));
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.head_dim = 15, c.alibi = true; }), "");
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.head_norm = c.alibi = true; }), HasSubstr("normalised heads"));
  EXPECT_EQ(Refusal([](ModelConfig& c) { c.vocab = kVocabMax + 1; }),
            "vocab is 2097153; 1 to 2097152 is possible");
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.norm_epsilon = 0; }), HasSubstr("epsilon"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.norm_epsilon = NAN; }), HasSubstr("epsilon"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.rope_theta = NAN; }), HasSubstr("rope_theta"));
  EXPECT_THAT(Refusal([](ModelConfig& c) {
                c.rope_scaling = {8, 4, 1, 8192};
              }),
              HasSubstr("llama3 rope scaling"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.rope_factors = {1}; }), HasSubstr("1 rope factors for 8 pairs"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.rope_factors.assign(8, 0); }), HasSubstr("rope factor 0"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.eos = {-5}; }), HasSubstr("end-of-sequence id is -5"));
  EXPECT_THAT(Refusal([](ModelConfig& c) { c.eos.assign(65, 1); }), HasSubstr("65 end-of-sequence ids"));
}

TEST(ConfigTest, CanonicalTextTellsEveryFieldApart) {
  const std::vector<std::function<void(ModelConfig&)>> changes = {
      [](ModelConfig&) {},
      [](ModelConfig& c) { c.architecture = Architecture::kBloom; },
      [](ModelConfig& c) { c.architecture = Architecture::kQwen2; },
      [](ModelConfig& c) { c.head_norm = true; },
      [](ModelConfig& c) { c.layers++; },
      [](ModelConfig& c) { c.hidden++; },
      [](ModelConfig& c) { c.heads++; },
      [](ModelConfig& c) { c.kv_heads++; },
      [](ModelConfig& c) { c.head_dim++; },
      [](ModelConfig& c) { c.ffn++; },
      [](ModelConfig& c) { c.vocab++; },
      [](ModelConfig& c) { c.max_positions++; },
      [](ModelConfig& c) { c.layer_norm = true; },
      [](ModelConfig& c) { c.norm_epsilon = std::nextafter(c.norm_epsilon, 1.0); },
      [](ModelConfig& c) { c.embedding_norm = true; },
      [](ModelConfig& c) { c.alibi = true; },
      [](ModelConfig& c) { c.rope_theta = 500000; },
      [](ModelConfig& c) { c.rope_scaling.emplace(); },
      [](ModelConfig& c) {
        c.rope_scaling = {2, 1, 4, 8192};
      },
      [](ModelConfig& c) {
        c.rope_factors = {1, 2};
      },
      [](ModelConfig& c) { c.gated_mlp = false; },
      [](ModelConfig& c) { c.qkv_bias = true; },
      [](ModelConfig& c) { c.attention_output_bias = true; },
      [](ModelConfig& c) { c.mlp_bias = true; },
      [](ModelConfig& c) { c.residual_after_norm = true; },
      [](ModelConfig& c) { c.tied_head = true; },
      [](ModelConfig& c) { c.bos = 1; },
      [](ModelConfig& c) { c.eos = {2}; },
      [](ModelConfig& c) {
        c.eos = {2, 3};
      },
  };
  std::set<std::string> texts;
  for (const auto& change : changes) {
    ModelConfig config = Small();
    change(config);
    texts.insert(CanonicalText(config));
  }
  EXPECT_EQ(texts.size(), changes.size());
  EXPECT_EQ(texts.begin()->find('\n'), std::string::npos);
}

TEST(AlibiTest, PowerOfTwoHeadCounts) {
  EXPECT_THAT(AlibiSlopes(1), ElementsAre(0x1p-8f));
  EXPECT_THAT(AlibiSlopes(8), ElementsAre(0.5f, 0.25f, 0.125f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f, 0x1p-8f));
  const std::vector<float> slopes = AlibiSlopes(32);
  for (int i = 0; i < 32; ++i) {
    // The base is rounded to fp32 before it is raised, so the error grows with the power.
    const double exact = std::exp2(-(i + 1) / 4.0);
    EXPECT_NEAR(slopes[i] / exact, 1, (i + 2) * 0x1p-24) << i;
  }
}

TEST(AlibiTest, OtherHeadCountsTakeOddPowersOfTheFinerBase) {
  const std::vector<float> slopes = AlibiSlopes(5);
  ASSERT_EQ(slopes.size(), 5u);
  EXPECT_THAT(std::vector<float>(slopes.begin(), slopes.begin() + 4),
              ElementsAre(0x1p-2f, 0x1p-4f, 0x1p-6f, 0x1p-8f));
  EXPECT_FLOAT_EQ(slopes[4], 0.5f);
  EXPECT_THAT(AlibiSlopes(3), ElementsAre(0x1p-4f, 0x1p-8f, 0x1p-2f));
}

TEST(RopeTest, UnscaledFrequencies) {
  ModelConfig config = Small();
  config.head_dim = 4;
  EXPECT_THAT(RopeInverseFrequencies(config), ElementsAre(1.0f, 0.01f));
  config.head_dim = 128;
  const std::vector<float> frequencies = RopeInverseFrequencies(config);
  ASSERT_EQ(frequencies.size(), 64u);
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(frequencies[i] * std::pow(10000.0, i / 64.0), 1, 0x1p-22) << i;
}

TEST(RopeTest, Llama3ScalingLeavesShortWavesAndStretchesLongOnes) {
  ModelConfig config = Small();
  config.head_dim = 128;
  config.rope_theta = 500000;
  const std::vector<float> plain = RopeInverseFrequencies(config);
  config.rope_scaling = Llama3RopeScaling{8, 1, 4, 8192};
  const std::vector<float> scaled = RopeInverseFrequencies(config);
  int between = 0;
  for (int i = 0; i < 64; ++i) {
    const double wave_length = 2 * M_PI / plain[i];
    if (wave_length < 8192 / 4) {
      EXPECT_EQ(scaled[i], plain[i]);
    } else if (wave_length > 8192) {
      EXPECT_EQ(scaled[i], plain[i] / 8);
    } else {
      const double smooth = (8192 / wave_length - 1) / 3;
      EXPECT_NEAR(scaled[i] / ((1 - smooth) * plain[i] / 8 + smooth * plain[i]), 1, 1e-5);
      ++between;
    }
  }
  EXPECT_GT(between, 3);
}

TEST(RopeTest, StoredFactorsDivide) {
  ModelConfig config = Small();
  config.head_dim = 4;
  config.rope_factors = {1, 8};
  EXPECT_THAT(RopeInverseFrequencies(config), ElementsAre(1.0f, 0.01f / 8));
}

}  // namespace
}  // namespace bellwether
