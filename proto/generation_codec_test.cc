#include "proto/generation_codec.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(GenerationCodec, AbsentStaysAbsent) {
  v1::GenerationOptions message;
  Encode(GenerationOptions{}, &message);
  const absl::StatusOr<GenerationOptions> decoded = Decode(message);
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->max_tokens || decoded->temperature || decoded->seed || decoded->logprobs ||
               decoded->n);
}

TEST(GenerationCodec, EveryFieldSurvives) {
  const GenerationOptions options{.max_tokens = 1,
                                  .min_tokens = 2,
                                  .temperature = 0.0,
                                  .top_k = 4,
                                  .top_p = 0.5,
                                  .min_p = 0.25,
                                  .repetition_penalty = 1.5,
                                  .presence_penalty = -1.0,
                                  .frequency_penalty = 2.0,
                                  .logit_bias = {{1, 2.0f}, {5, -1.0f}},
                                  .seed = 0,
                                  .stop = {"a", "b"},
                                  .stop_token_ids = {7},
                                  .ignore_eos = true,
                                  .logprobs = 0,
                                  .n = 3};
  v1::GenerationOptions message;
  Encode(options, &message);
  const absl::StatusOr<GenerationOptions> decoded = Decode(message);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->max_tokens, 1);
  EXPECT_EQ(decoded->min_tokens, 2);
  EXPECT_EQ(decoded->temperature, 0.0);
  EXPECT_EQ(decoded->top_k, 4);
  EXPECT_EQ(decoded->top_p, 0.5);
  EXPECT_EQ(decoded->min_p, 0.25);
  EXPECT_EQ(decoded->repetition_penalty, 1.5);
  EXPECT_EQ(decoded->presence_penalty, -1.0);
  EXPECT_EQ(decoded->frequency_penalty, 2.0);
  EXPECT_EQ(decoded->logit_bias, options.logit_bias);
  EXPECT_EQ(decoded->seed, 0u);
  EXPECT_EQ(decoded->stop, options.stop);
  EXPECT_EQ(decoded->stop_token_ids, options.stop_token_ids);
  EXPECT_TRUE(decoded->ignore_eos);
  EXPECT_EQ(decoded->logprobs, 0);
  EXPECT_EQ(decoded->n, 3);
}

TEST(GenerationCodec, APromptIsTextOrTokens) {
  v1::Prompt message;
  EXPECT_EQ(Decode(message).status().code(), absl::StatusCode::kInvalidArgument);
  Encode(PromptInput{.token_ids = std::vector<TokenId>{}}, &message);
  EXPECT_TRUE(Decode(message)->token_ids->empty());
  Encode(PromptInput{.text = "hi", .parse_special_tokens = true}, &message);
  EXPECT_EQ(Decode(message)->text, "hi");
  EXPECT_FALSE(Decode(message)->token_ids);
  EXPECT_TRUE(Decode(message)->parse_special_tokens);
}

}  // namespace
}  // namespace bellwether
