#include "cli/batch/batch_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Contents(const std::vector<ChatMessage>& messages) {
  std::vector<std::string> contents;
  for (const ChatMessage& message : messages) contents.push_back(message.role + ":" + message.content);
  return contents;
}

TEST(BatchTaskTest, ReadsEveryKind) {
  // As BELLE's ZeRO-Inference script and FastChat's get_model_answer have it, and BELLE's evaluation set.
  const BatchTask text = *ParseBatchTask(R"({"question_id": 7, "text": "你好", "category": "generic"})");
  EXPECT_THAT(text.turns, ElementsAre("你好"));
  EXPECT_FALSE(text.several);
  ASSERT_EQ(text.ids.size(), 1u);
  EXPECT_EQ(text.ids[0].first, "question_id");
  EXPECT_EQ(text.ids[0].second, Json(7));
  EXPECT_THAT(ParseBatchTask(R"({"question": "a", "std_answer": "b", "class": "c"})")->turns,
              ElementsAre("a"));

  EXPECT_THAT(ParseBatchTask(R"({"instruction": "add", "input": "1 2"})")->turns, ElementsAre("add\n1 2"));
  EXPECT_THAT(ParseBatchTask(R"({"instruction": "add", "input": ""})")->turns, ElementsAre("add"));
  EXPECT_THAT(ParseBatchTask(R"({"instruction": "add", "input": null})")->turns, ElementsAre("add"));

  const BatchTask prompt = *ParseBatchTask(R"({"prompt": "Once", "system": "unused"})");
  EXPECT_EQ(prompt.prompt, "Once");
  EXPECT_THAT(prompt.history, ElementsAre());

  const BatchTask turns = *ParseBatchTask(R"({"turns": ["a", "b"], "system": "be brief"})");
  EXPECT_THAT(turns.turns, ElementsAre("a", "b"));
  EXPECT_TRUE(turns.several);
  EXPECT_THAT(Contents(turns.history), ElementsAre("system:be brief"));

  const BatchTask messages = *ParseBatchTask(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                       {"role": "user", "content": "c"}]})");
  EXPECT_THAT(Contents(messages.history), ElementsAre("user:a", "assistant:b"));
  EXPECT_THAT(messages.turns, ElementsAre("c"));
}

TEST(BatchTaskTest, SaysWhatIsWrong) {
  const auto error = [](std::string_view line) {
    return std::string(ParseBatchTask(line).status().message());
  };
  EXPECT_THAT(error("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error("{"), HasSubstr("column"));
  EXPECT_THAT(error(R"({"txt": "a"})"), HasSubstr("has none of prompt, text"));
  EXPECT_THAT(error(R"({"prompt": "a", "text": "b"})"), HasSubstr("has prompt and text"));
  EXPECT_THAT(error(R"({"text": 3})"), HasSubstr("\"text\" is not a text"));
  EXPECT_THAT(error(R"({"turns": []})"), HasSubstr("\"turns\""));
  EXPECT_THAT(error(R"({"turns": ["a", 1]})"), HasSubstr("\"turns\""));
  EXPECT_THAT(error(R"({"messages": [{"role": "assistant", "content": "a"}]})"),
              HasSubstr("nothing to answer"));
  EXPECT_THAT(error(R"({"messages": ["a"]})"), HasSubstr("\"role\""));
  EXPECT_THAT(error(R"({"text": "a", "system": 1})"), HasSubstr("\"system\""));
}

}  // namespace
}  // namespace bellwether
