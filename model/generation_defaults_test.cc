#include "model/generation_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {
namespace {

TEST(GenerationDefaultsTest, ReadsWhatAFileSays) {
  const GenerationOptions options = *ParseGenerationDefaults(
      R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2,
          "max_new_tokens": 300, "min_new_tokens": 1, "num_beams": 1, "eos_token_id": [2, 5]})");
  EXPECT_EQ(options.temperature, 0.6);
  EXPECT_EQ(options.top_k, 20);
  EXPECT_EQ(options.top_p, 0.9);
  EXPECT_EQ(options.min_p, 0.05);
  EXPECT_EQ(options.repetition_penalty, 1.2);
  EXPECT_EQ(options.max_tokens, 300);
  EXPECT_EQ(options.min_tokens, 1);

  // BELLE's own: it says nothing of sampling.
  const GenerationOptions belle = *ParseGenerationDefaults(
      R"({"_from_model_config": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})");
  EXPECT_FALSE(belle.temperature.has_value());
  EXPECT_FALSE(belle.max_tokens.has_value());

  EXPECT_EQ(ParseGenerationDefaults(R"({"do_sample": false, "temperature": 0.6})")->temperature, 0);
  EXPECT_FALSE(ParseGenerationDefaults(R"({"temperature": null})")->temperature.has_value());
  EXPECT_FALSE(ParseGenerationDefaults(R"({"temperature": "hot"})").ok());
  EXPECT_FALSE(ParseGenerationDefaults(R"({"top_k": 4294967296})").ok());
  EXPECT_FALSE(ParseGenerationDefaults("[]").ok());
}

TEST(GenerationDefaultsTest, WhatIsAskedForWinsOverTheFileAndTheFileOverTheCard) {
  GenerationOptions options = {.temperature = 1.5};
  FillIn(*ParseGenerationDefaults(R"({"temperature": 0.6, "top_k": 20})"), options);
  FillIn(FindChatTemplate("belle-7b")->CardOptions(), options);
  EXPECT_EQ(options.temperature, 1.5);
  EXPECT_EQ(options.top_k, 20);
  EXPECT_EQ(options.top_p, 0.85);
  EXPECT_EQ(options.repetition_penalty, 1.2);
  EXPECT_EQ(options.max_tokens, 200);
}

TEST(GenerationDefaultsTest, AFamilyWithoutACardLeavesEverythingAlone) {
  const GenerationOptions options = FindChatTemplate("chatml")->CardOptions();
  EXPECT_FALSE(options.temperature || options.top_k || options.top_p || options.repetition_penalty ||
               options.max_tokens || options.min_tokens);
  const GenerationOptions web = FindChatTemplate("belle-train")->CardOptions();
  EXPECT_EQ(web.temperature, 0) << "BELLE's web page does not sample";
  EXPECT_FALSE(web.top_k.has_value());
}

}  // namespace
}  // namespace bellwether
