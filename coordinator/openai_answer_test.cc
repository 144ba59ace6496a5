#include "coordinator/openai_answer.h"

#include <limits>
#include <string>
#include <vector>

#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

class OpenAiAnswerTest : public ::testing::Test {
 protected:
  OpenAiAnswer Make(OpenAiAnswer::Options options) {
    options.id = "req-1";
    options.created = 5;
    options.model = "m";
    options.fingerprint = "avx2-bf16";
    return OpenAiAnswer(&tokenizer_, std::move(options));
  }
  static Json Parsed(const std::string& text) {
    auto json = ParseJson(text);
    EXPECT_TRUE(json.ok()) << json.status() << " in " << text;
    return json.ok() ? *std::move(json) : Json();
  }
  // "a" as it was sampled, with "b" beside it.
  static ShownToken Token(float logprob = -0.5f) {
    return {.output = {.token = 1, .logprob = logprob, .top = {{1, logprob}, {2, -1.5f}}}, .bytes = "a"};
  }

  const FakeTokenizer tokenizer_{{"", "a", "b", "\xC3"}};
  const Usage usage_{.prompt_tokens = 3, .generated_tokens = 4};
};

TEST_F(OpenAiAnswerTest, AWholeChat) {
  const Json answer = Parsed(
      Make({.chat = true}).Whole({{.text = "hi", .finish = FinishReason::kStop}}, usage_, {UINT64_MAX}));
  EXPECT_EQ(answer["id"].text(), "chatcmpl-req-1");
  EXPECT_EQ(answer["object"].text(), "chat.completion");
  EXPECT_EQ(answer["created"].get<int>(), 5);
  EXPECT_EQ(answer["system_fingerprint"].text(), "avx2-bf16");
  EXPECT_EQ(answer["seed"].text(), "18446744073709551615") << "a number would lose digits";
  EXPECT_EQ(answer["usage"]["total_tokens"].get<int>(), 7);
  const Json& choice = answer["choices"].front();
  EXPECT_EQ(choice["message"]["role"].text(), "assistant");
  EXPECT_EQ(choice["message"]["content"].text(), "hi");
  EXPECT_EQ(choice["finish_reason"].text(), "stop");
  EXPECT_TRUE(choice["logprobs"].is_null());
}

TEST_F(OpenAiAnswerTest, ThePiecesOfAChat) {
  const OpenAiAnswer answer = Make({.chat = true, .stream = true, .usage_in_pieces = true});
  const Json first = Parsed(answer.Piece({.index = 1, .text = "hi"}));
  EXPECT_EQ(first["object"].text(), "chat.completion.chunk");
  EXPECT_TRUE(first.contains("usage") && first["usage"].is_null());
  EXPECT_EQ(first["choices"].front()["index"].get<int>(), 1);
  EXPECT_EQ(WriteJson(first["choices"].front()["delta"]), R"({"role":"assistant","content":"hi"})");
  const Json last = Parsed(answer.Piece({.first = false, .finish = FinishReason::kLength}, /*seed=*/7));
  EXPECT_EQ(WriteJson(last["choices"].front()),
            R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length","seed":"7"})");
  const Json usage = Parsed(answer.UsagePiece(usage_));
  EXPECT_TRUE(usage["choices"].is_array() && usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"].get<int>(), 4);
}

TEST_F(OpenAiAnswerTest, EachPromptOfACompletionHasItsSeed) {
  const Json answer = Parsed(Make({}).Whole({{}, {}, {}, {}}, usage_, {5, 6}));
  EXPECT_EQ(answer["object"].text(), "text_completion");
  EXPECT_FALSE(answer.contains("seed"));
  std::vector<std::string> seeds;
  for (const Json& choice : answer["choices"]) seeds.push_back(choice["seed"].text());
  EXPECT_THAT(seeds, ::testing::ElementsAre("5", "5", "6", "6"));
}

TEST_F(OpenAiAnswerTest, LogprobsOfAChat) {
  const OpenAiAnswer answer = Make({.chat = true, .logprobs = true});
  const Json whole = Parsed(answer.Whole({{.text = "a", .tokens = {Token()}}}, usage_, {1}));
  EXPECT_EQ(WriteJson(whole["choices"].front()["logprobs"]["content"]),
            R"([{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[)"
            R"({"token":"a","logprob":-0.5,"bytes":[97]},{"token":"b","logprob":-1.5,"bytes":[98]}]}])");
}

TEST_F(OpenAiAnswerTest, LogprobsOfACompletion) {
  const OpenAiAnswer answer = Make({.logprobs = true});
  ShownToken first = Token(std::numeric_limits<float>::quiet_NaN());  // of a prompt
  first.bytes = "\u00E9";
  const Json whole = Parsed(answer.Whole({{.text = "\u00E9a", .tokens = {first, Token()}}}, usage_, {1}));
  EXPECT_EQ(WriteJson(whole["choices"].front()["logprobs"]),
            "{\"text_offset\":[0,1],\"token_logprobs\":[null,-0.5],\"tokens\":[\"\u00E9\",\"a\"],"
            "\"top_logprobs\":[null,{\"a\":-0.5,\"b\":-1.5}]}");
}

TEST_F(OpenAiAnswerTest, EndsThatAreErrorsAreNoFinishReason) {
  const OpenAiAnswer answer = Make({.stream = true});
  EXPECT_TRUE(Parsed(answer.Piece({.finish = FinishReason::kDeadline}))["choices"]
                  .front()["finish_reason"]
                  .is_null());
}

std::vector<size_t> Offsets(const std::vector<std::string>& tokens, size_t offset = 0) {
  std::vector<ShownToken> shown;
  for (const std::string& bytes : tokens) shown.push_back({.output = {}, .bytes = bytes});
  return TextOffsets(shown, offset);
}

TEST(OpenAiAnswer, CountsTheCharactersBeforeEachToken) {
  EXPECT_THAT(Offsets({"a\u00E9", "\u4F60", "", "b"}), ::testing::ElementsAre(0, 2, 3, 3, 4));
  EXPECT_THAT(Offsets({"\xE4\xBD", "\xA0", "b"}), ::testing::ElementsAre(0, 1, 1, 2));
  EXPECT_THAT(Offsets({"\xA0", "b"}, 7), ::testing::ElementsAre(7, 7, 8))
      << "the rest of one that has been counted";
}

// Tokens that are given by id may be any: the rest of a character alone was none, though the text shows it.
TEST(OpenAiAnswer, CountsBrokenBytesOfAPromptAsTheTextShowsThem) {
  EXPECT_THAT(Offsets({"\xA9", "\xA9", "a", "\xFF\xFF", "b"}), ::testing::ElementsAre(0, 1, 2, 3, 5, 6));
  EXPECT_THAT(Offsets({"\xE4\xBD", "a", "\xE4", "\xFF"}), ::testing::ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(Offsets({"\xE4", "\xBD", "\uFFFD"}), ::testing::ElementsAre(0, 1, 1, 2)) << "an answer follows";
}

}  // namespace
}  // namespace bellwether
