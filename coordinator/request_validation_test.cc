#include "coordinator/request_validation.h"

#include <limits>

#include "common/defaults.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr RequestLimits kLimits{.vocab = 100, .context_tokens = 16, .has_tokenizer = true};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  const char* field;
  const char* allowed;
  GenerationOptions options;
};

TEST(RequestValidation, EveryBadFieldIsNamedWithWhatIsAllowed) {
  const Case cases[] = {
      {"max_tokens is 0", "1 or more", {.max_tokens = 0}},
      {"max_tokens is -1", "1 or more", {.max_tokens = -1}},
      {"min_tokens is -1", "0 or more", {.min_tokens = -1}},
      {"min_tokens is 5", "at most max_tokens, 4", {.max_tokens = 4, .min_tokens = 5}},
      {"sampling.temperature", "0 or more", {.temperature = -0.1}},
      {"sampling.temperature", "0 or more", {.temperature = kNan}},
      {"sampling.temperature", "0 or more", {.temperature = kInfinity}},
      {"sampling.top_k is -1", "0 to", {.top_k = -1}},
      {"sampling.top_p is 0", "above 0 to 1", {.top_p = 0.0}},
      {"sampling.top_p is 1.5", "above 0 to 1", {.top_p = 1.5}},
      {"sampling.top_p is nan", "above 0 to 1", {.top_p = kNan}},
      {"sampling.min_p is -0.5", "0 to 1", {.min_p = -0.5}},
      {"sampling.min_p is 2", "0 to 1", {.min_p = 2.0}},
      {"sampling.repetition_penalty is 0", "above 0", {.repetition_penalty = 0.0}},
      {"sampling.repetition_penalty", "above 0", {.repetition_penalty = kInfinity}},
      {"sampling.presence_penalty is 101", "-100 to 100", {.presence_penalty = 101.0}},
      {"sampling.frequency_penalty is -101", "-100 to 100", {.frequency_penalty = -101.0}},
      {"sampling.logit_bias holds token id 100", "0 to 99", {.logit_bias = {{100, 1.0f}}}},
      {"sampling.logit_bias[3] is 1001", "-1000 to 1000", {.logit_bias = {{3, 1001.0f}}}},
      {"stop has 17", "at most 16", {.stop = std::vector<std::string>(17, "x")}},
      {"stop holds an empty", "", {.stop = {""}}},
      {"stop holds a string of 2000", "at most 1024", {.stop = {std::string(2000, 'x')}}},
      {"stop_token_ids has 65", "at most 64", {.stop_token_ids = std::vector<TokenId>(65, 1)}},
      {"stop_token_ids holds token id -1", "0 to 99", {.stop_token_ids = {-1}}},
      {"logprobs is 21", "0 to 20", {.logprobs = 21}},
      {"logprobs is -1", "0 to 20", {.logprobs = -1}},
      {"n is 0", "1 to 16", {.n = 0}},
      {"n is 17", "1 to 16", {.n = 17}},
  };
  for (const Case& it : cases) {
    const absl::Status status = Validate(it.options, kLimits);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << it.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(it.field));
    EXPECT_THAT(std::string(status.message()), HasSubstr(it.allowed));
  }
}

TEST(RequestValidation, BordersAreAllowed) {
  EXPECT_TRUE(Validate(GenerationOptions{}, kLimits).ok());
  const GenerationOptions low{.max_tokens = 1,
                              .min_tokens = 0,
                              .temperature = 0.0,
                              .top_k = 0,
                              .top_p = 1e-9,
                              .min_p = 0.0,
                              .repetition_penalty = 1e-9,
                              .presence_penalty = -100.0,
                              .frequency_penalty = -100.0,
                              .logit_bias = {{0, -1000.0f}},
                              .stop = {"x"},
                              .stop_token_ids = {0},
                              .logprobs = 0,
                              .n = 1};
  EXPECT_TRUE(Validate(low, kLimits).ok()) << Validate(low, kLimits);
  const GenerationOptions high{.max_tokens = INT32_MAX,
                               .min_tokens = INT32_MAX,
                               .temperature = 1e9,
                               .top_k = INT32_MAX,
                               .top_p = 1.0,
                               .min_p = 1.0,
                               .repetition_penalty = 1e9,
                               .presence_penalty = 100.0,
                               .frequency_penalty = 100.0,
                               .logit_bias = {{99, 1000.0f}},
                               .stop_token_ids = {99},
                               .logprobs = 20,
                               .n = 16};
  EXPECT_TRUE(Validate(high, kLimits).ok()) << Validate(high, kLimits);
}

TEST(RequestValidation, StopStringsNeedATokenizer) {
  RequestLimits limits = kLimits;
  limits.has_tokenizer = false;
  EXPECT_THAT(std::string(Validate(GenerationOptions{.stop = {"x"}}, limits).message()),
              HasSubstr("stop_token_ids"));
}

TEST(RequestValidation, PromptsFitTheContextAndTheVocabulary) {
  EXPECT_TRUE(ValidatePrompt(std::vector<TokenId>(15, 1), false, kLimits).ok());
  const absl::Status status = ValidatePrompt(std::vector<TokenId>(17, 1), false, kLimits);
  EXPECT_THAT(std::string(status.message()), HasSubstr("17 tokens"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds 16"));
  EXPECT_FALSE(ValidatePrompt(std::vector<TokenId>(16, 1), false, kLimits).ok());
  EXPECT_TRUE(ValidatePrompt(std::vector<TokenId>(16, 1), true, kLimits).ok());
  EXPECT_FALSE(ValidatePrompt(std::vector<TokenId>(17, 1), true, kLimits).ok());
  EXPECT_FALSE(ValidatePrompt({}, false, kLimits).ok());
  EXPECT_FALSE(ValidatePrompt(std::vector<TokenId>{1, 100}, false, kLimits).ok());
  EXPECT_FALSE(ValidatePrompt(std::vector<TokenId>{-1}, false, kLimits).ok());
}

TEST(RequestValidation, RequestIdsAreShortAndPrintable) {
  EXPECT_TRUE(ValidateRequestId("abc-123/x").ok());
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\nb"), std::string(129, 'x')}) {
    EXPECT_FALSE(ValidateRequestId(bad).ok());
  }
}

TEST(RequestValidation, MaxTokensIsWhatTheContextLeaves) {
  EngineRequest request{.prompt = std::vector<TokenId>(10, 1)};
  ApplyOptions({}, kLimits, &request);
  EXPECT_EQ(request.max_tokens, 6);
  EXPECT_EQ(request.choices, 1);
  EXPECT_EQ(request.sampling.logprobs, -1);
  EXPECT_FALSE(request.seed);
  ApplyOptions({.max_tokens = 3, .seed = 5, .logprobs = 0}, kLimits, &request);
  EXPECT_EQ(request.max_tokens, 3);
  EXPECT_EQ(request.seed, 5u);
  EXPECT_EQ(request.sampling.logprobs, 0);
  ApplyOptions({}, {.vocab = 100, .context_tokens = 1 << 20}, &request);
  EXPECT_EQ(request.max_tokens, kDefaultMaxTokens);
}

// Special tokens never show in the text that stop strings are looked for in.
TEST(StopTokens, AStopStringThatSpellsASpecialTokenWorksOrIsRefused) {
  const auto tokenizer = LoadTokenizerFromDirectory("tests/goldens/tokenizer/smollm");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const TokenId end = *(*tokenizer)->FindToken("<|im_end|>");
  EngineRequest request;
  request.stop = {"Human:", "<|im_end|>", "<|im_end"};
  ASSERT_TRUE(AddStopTokens(**tokenizer, &request).ok());
  EXPECT_THAT(request.stop_token_ids, ::testing::ElementsAre(end));
  EXPECT_EQ(request.stop.size(), 3u);

  request.stop = {"\n<|im_end|>"};
  const absl::Status status = AddStopTokens(**tokenizer, &request);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat("the special token \"<|im_end|>\" never shows in a text: use "
                                     "stop_token_ids with ",
                                     end)));
}

}  // namespace
}  // namespace bellwether
