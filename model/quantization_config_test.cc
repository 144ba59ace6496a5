#include "model/quantization_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<QuantizationConfig> Parse(const std::string& text) {
  return ParseQuantizationConfig(*ParseJson(text));
}

std::string Refusal(const std::string& text) {
  const auto config = Parse(text);
  EXPECT_FALSE(config.ok()) << text;
  return std::string(config.status().message());
}

TEST(QuantizationConfigTest, WhatAutoGptqWroteFirst) {
  const auto config = Parse(R"({"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": false,
                                "sym": true, "true_sequential": true, "model_name_or_path": null})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, (QuantizationConfig{.bits = 4, .group = 128, .symmetric = true, .act_order = false}));
}

TEST(QuantizationConfigTest, WhatGptqModelWritesToday) {
  const auto config = Parse(R"({"bits": 8, "group_size": -1, "desc_act": true, "sym": false,
      "checkpoint_format": "gptq_v2", "quant_method": "gptq", "pack_dtype": "int32", "lm_head": true,
      "dynamic": {"-:.*mlp.*": {}, "+:.*0.*q_proj.*": {"bits": 4, "group_size": 64}}, "meta": {"x": [1]}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, (QuantizationConfig{.bits = 8,
                                         .group = -1,
                                         .act_order = true,
                                         .true_zeros = true,
                                         .rules = {{.pattern = ".*mlp.*"},
                                                   {.pattern = ".*0.*q_proj.*", .bits = 4, .group = 64}}}));
  const auto settings = MatrixSettings::Compile(*config);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->Of("model.layers.0.self_attn.q_proj")->bits, 4);
  EXPECT_EQ(settings->Of("model.layers.0.self_attn.q_proj")->act_order, true);
  EXPECT_EQ(settings->Of("model.layers.1.self_attn.q_proj")->group, -1);
  EXPECT_EQ(settings->Of("model.layers.0.mlp.up_proj")->bits, 8);
}

TEST(QuantizationConfigTest, WhatAwqWroteFirst) {
  const auto config = Parse(R"({"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, (QuantizationConfig{.method = QuantizationConfig::Method::kAwq,
                                         .bits = 4,
                                         .group = 128,
                                         .act_order = false,
                                         .true_zeros = true}));
}

// A symmetric model with one rule that is not: no matrix is taken for symmetric.
TEST(QuantizationConfigTest, ARuleThatIsNotSymmetric) {
  const auto config = Parse(R"({"bits": 4, "sym": true, "dynamic": {"x": {"sym": false}}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->symmetric);
}

TEST(QuantizationConfigTest, OtherMethodsAreRefusedByNameWithWhatToUse) {
  for (const char* method : {"bitsandbytes", "fp8", "compressed-tensors", "exl2", "hqq", "aqlm"}) {
    EXPECT_THAT(Refusal(std::string(R"({"quant_method": ")") + method + "\"}"),
                AllOf(HasSubstr(method), HasSubstr("--quantize int8 or int4")));
  }
  EXPECT_THAT(Refusal(R"({"load_in_4bit": true})"), HasSubstr("bitsandbytes"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "is_marlin_format": true})"), HasSubstr("Marlin"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "checkpoint_format": "marlin"})"), HasSubstr("marlin"));
  EXPECT_THAT(Refusal(R"({"quant_method": "awq", "bits": 4, "version": "gemv"})"), HasSubstr("gemv"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "pack_dtype": "int16"})"), HasSubstr("int16"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "dynamic": {"a": {"quant_method": "awq"}}})"),
              HasSubstr("quant_method"));
}

TEST(QuantizationConfigTest, DamagedSettingsAreRefused) {
  EXPECT_THAT(Refusal("3"), HasSubstr("no object"));
  EXPECT_THAT(Refusal("{}"), HasSubstr("'bits' is missing"));
  EXPECT_THAT(Refusal(R"({"bits": 5})"), HasSubstr("'bits' is 5"));
  EXPECT_THAT(Refusal(R"({"bits": 4294967300})"), HasSubstr("'bits' is 4294967300"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "group_size": 0})"), HasSubstr("'group_size' is 0"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "sym": "yes"})"), HasSubstr("'sym'"));
  EXPECT_THAT(Refusal(R"({"bits": 4, "dynamic": {"a": {"bits": 5}}})"), HasSubstr("'bits' is 5"));
  std::string rules = "\"r\": {}";
  for (int i = 0; i < 1024; ++i) rules += ", \"" + std::to_string(i) + "\": {}";
  EXPECT_THAT(Refusal(R"({"bits": 4, "dynamic": {)" + rules + "}}"), HasSubstr("more than 1024 rules"));
}

}  // namespace
}  // namespace bellwether
