#include "coordinator/openai_request.h"

#include "absl/strings/str_cat.h"
#include "common/defaults.h"
#include "coordinator/request_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

Json Parsed(const std::string& text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status() << " in " << text;
  return json.ok() ? *std::move(json) : Json();
}

// What stands in the braces, beside what every request needs.
absl::StatusOr<OpenAiRequest> Chat(const std::string& members) {
  return ParseChatRequest(
      Parsed(absl::StrCat(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}])",
                          members.empty() ? "" : ", ", members, "}")));
}
absl::StatusOr<OpenAiRequest> Completion(const std::string& members) {
  return ParseCompletionRequest(
      Parsed(absl::StrCat(R"({"model": "m", "prompt": "hi")", members.empty() ? "" : ", ", members, "}")));
}

TEST(OpenAiRequest, AsksForNothingUnusualByItself) {
  const auto chat = Chat("");
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_TRUE(chat->chat);
  EXPECT_EQ(chat->model, "m");
  ASSERT_EQ(chat->messages.size(), 1u);
  EXPECT_EQ(chat->messages[0].role, "user");
  EXPECT_EQ(chat->messages[0].content, "hi");
  EXPECT_FALSE(chat->options.max_tokens.has_value()) << "as many as the context holds";
  EXPECT_FALSE(chat->stream);
  const auto completion = Completion("");
  ASSERT_TRUE(completion.ok()) << completion.status();
  EXPECT_EQ(completion->options.max_tokens, 16);
  ASSERT_EQ(completion->prompts.size(), 1u);
  EXPECT_EQ(completion->prompts[0].text, "hi");
  EXPECT_TRUE(completion->prompts[0].parse_special_tokens);
}

TEST(OpenAiRequest, TakesOpenAisOptionsAndVllms) {
  const auto request = Chat(R"("temperature": 0.5, "top_p": 0.9, "n": 3, "stop": ["a", "b"], "seed": 7,
      "presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {"5": -100, "3": 1.5}, "max_tokens": 5,
      "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 20, "stream": true,
      "stream_options": {"include_usage": true}, "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1,
      "min_tokens": 2, "ignore_eos": true, "stop_token_ids": [1, 2])");
  ASSERT_TRUE(request.ok()) << request.status();
  const GenerationOptions& options = request->options;
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_p, 0.9);
  EXPECT_EQ(options.n, 3);
  EXPECT_THAT(options.stop, ElementsAre("a", "b"));
  EXPECT_EQ(options.seed, 7u);
  EXPECT_EQ(options.presence_penalty, -2);
  EXPECT_EQ(options.frequency_penalty, 2);
  EXPECT_THAT(options.logit_bias, ElementsAre(Pair(3, 1.5f), Pair(5, -100.0f)));
  EXPECT_EQ(options.max_tokens, 9) << "the newer name counts";
  EXPECT_EQ(options.logprobs, 20);
  EXPECT_TRUE(request->stream && request->include_usage);
  EXPECT_EQ(options.top_k, 4);
  EXPECT_EQ(options.min_p, 0.1);
  EXPECT_EQ(options.repetition_penalty, 1.1);
  EXPECT_EQ(options.min_tokens, 2);
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_THAT(options.stop_token_ids, ElementsAre(1, 2));
}

TEST(OpenAiRequest, ASeedIsTakenByItsBits) {
  EXPECT_EQ(Chat(R"("seed": -1)")->options.seed, UINT64_MAX);
  EXPECT_EQ(Chat(R"("seed": 18446744073709551615)")->options.seed, UINT64_MAX);
}

TEST(OpenAiRequest, ExtremesMeanWhatTheyMeanElsewhere) {
  EXPECT_GT(*Chat(R"("top_p": 0)")->options.top_p, 0) << "the most likely token alone";
  EXPECT_EQ(Chat(R"("top_k": -1)")->options.top_k, 0) << "off";
  EXPECT_THAT(Chat(R"("stop": "end")")->options.stop, ElementsAre("end"));
  EXPECT_EQ(Chat(R"("logprobs": true)")->options.logprobs, 0) << "of the token alone";
  EXPECT_FALSE(Chat(R"("logprobs": false, "top_logprobs": 0)")->options.logprobs.has_value());
}

TEST(OpenAiRequest, NullUnknownAndNeutralMembersAskForNothing) {
  for (
      const char* members :
      {R"("temperature": null, "stop": null, "seed": null, "max_tokens": null, "stream": null, "logit_bias": null)",
       R"("never_heard_of": {"a": [1]}, "user": "someone", "metadata": {"a": "b"}, "service_tier": "auto")",
       R"("tools": [], "tool_choice": "auto", "functions": [], "store": false, "parallel_tool_calls": true)",
       R"("response_format": {"type": "text"}, "modalities": ["text"], "audio": null, "prediction": null)"}) {
    EXPECT_TRUE(Chat(members).ok()) << members << Chat(members).status();
  }
  EXPECT_TRUE(Completion(R"("suffix": null, "best_of": 1, "logprobs": null, "echo": false)").ok());
}

TEST(OpenAiRequest, ReadsTextPartsAndDevelopers) {
  const auto request = ParseChatRequest(Parsed(R"({"model": "m", "messages": [
      {"role": "developer", "content": "be short"},
      {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "x"},
      {"role": "assistant", "content": null}]})"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[1].content, "one\ntwo");
  EXPECT_EQ(request->messages[2].content, "");
}

TEST(OpenAiRequest, ReadsAllKindsOfPrompts) {
  const auto prompts = [](const std::string& prompt) {
    auto request = ParseCompletionRequest(Parsed(absl::StrCat(R"({"model": "m", "prompt": )", prompt, "}")));
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? request->prompts : std::vector<PromptInput>();
  };
  EXPECT_EQ(prompts(R"(["a", "b"])").size(), 2u);
  EXPECT_EQ(prompts(R"(["a", "b"])")[1].text, "b");
  ASSERT_EQ(prompts("[1, 2]").size(), 1u);
  EXPECT_THAT(*prompts("[1, 2]")[0].token_ids, ElementsAre(1, 2));
  ASSERT_EQ(prompts("[[1, 2], [3]]").size(), 2u);
  EXPECT_THAT(*prompts("[[1, 2], [3]]")[1].token_ids, ElementsAre(3));
}

TEST(OpenAiRequest, EchoMayBeAllThatIsAskedFor) {
  const auto request = Completion(R"("echo": true, "max_tokens": 0)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->echo);
  EXPECT_FALSE(request->answers);
  EXPECT_FALSE(Completion(R"("max_tokens": 0)").ok());
}

struct Refused {
  const char* members;
  const char* field;
  const char* message;
};

TEST(OpenAiRequest, RefusesWithTheMembersName) {
  for (const Refused& refused : std::initializer_list<Refused>{
           {R"("temperature": 2.1)", "temperature", "from 0 to 2"},
           {R"("temperature": "hot")", "temperature", "a number"},
           {R"("top_p": -0.1)", "top_p", "from 0 to 1"},
           {R"("presence_penalty": 3)", "presence_penalty", "from -2 to 2"},
           {R"("n": 0)", "n", "from 1 to 16"},
           {R"("n": 1.5)", "n", "whole number"},
           {R"("max_tokens": 0)", "max_tokens", "from 1"},
           {R"("max_tokens": 4294967296)", "max_tokens", "from 1"},
           {R"("seed": 1.5)", "seed", "64 bits"},
           {R"("stop": [1])", "stop", "strings"},
           {R"("logit_bias": {"x": 1})", "logit_bias", "token ids"},
           {R"("logit_bias": {"1": 101})", "logit_bias", "from -100 to 100"},
           {R"("logit_bias": {"1": 1, "01": 2})", "logit_bias", "twice"},
           {R"("top_logprobs": 21, "logprobs": true)", "top_logprobs", "from 0 to 20"},
           {R"("top_logprobs": 2)", "top_logprobs", "logprobs is true"},
           {R"("stream": "yes")", "stream", "true or false"},
           {R"("stream_options": {"include_usage": true})", "stream_options", "stream is true"},
           {R"("tools": [{"type": "function"}])", "tools", "not supported"},
           {R"("tool_choice": "required")", "tool_choice", "not supported"},
           {R"("response_format": {"type": "json_object"})", "response_format", "not supported"},
           {R"("store": true)", "store", "not supported"},
           {R"("guided_json": {})", "guided_json", "not supported"},
           {R"("model": 7)", "model", "a string"},
           {R"("messages": "hi")", "messages", "a list"},
           {R"("messages": [])", "messages", "at least one"},
           {R"("messages": [{"role": "tool", "content": "x"}])", "messages", "\"tool\""},
           {R"("messages": [{"role": "user", "content": null}])", "messages", "content is text"},
           {R"("messages": [{"role": "user", "content": [{"type": "image_url"}]}])", "messages", "image_url"},
           {R"("messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}])", "messages",
            "tool calls"}}) {
    const absl::Status status = Chat(refused.members).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << refused.members;
    EXPECT_EQ(FieldOf(status), refused.field) << refused.members;
    EXPECT_THAT(std::string(status.message()), HasSubstr(refused.message)) << refused.members;
  }
  for (const Refused& refused :
       std::initializer_list<Refused>{{R"("prompt": 7)", "prompt", "a string"},
                                      {R"("prompt": [])", "prompt", "a string"},
                                      {R"("prompt": ["a", 1])", "prompt", "a string"},
                                      {R"("prompt": [1, "a"])", "prompt", "a string"},
                                      {R"("prompt": [2147483648])", "prompt", "a string"},
                                      {R"("suffix": "x")", "suffix", "not supported"},
                                      {R"("best_of": 2)", "best_of", "not supported"},
                                      {R"("logprobs": 6)", "logprobs", "from 0 to 5"},
                                      {R"("logprobs": 1, "echo": true, "stream": true)", "stream", "echo"}}) {
    const absl::Status status = Completion(refused.members).status();
    EXPECT_EQ(FieldOf(status), refused.field) << refused.members;
    EXPECT_THAT(std::string(status.message()), HasSubstr(refused.message)) << refused.members;
  }
  EXPECT_FALSE(ParseChatRequest(Parsed("[]")).ok());
  EXPECT_EQ(FieldOf(ParseChatRequest(Parsed("{}")).status()), "model");
}

}  // namespace
}  // namespace bellwether
