#include "coordinator/request_service.h"

#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

absl::Status NeverStop() { return absl::OkStatus(); }

// Ids of one token a byte.
std::vector<std::string> Bytes() {
  std::vector<std::string> words;
  for (int byte = 1; byte < 128; ++byte) words.emplace_back(1, static_cast<char>(byte));
  return words;
}

RequestService::Options OptionsOf(const FakeTokenizer& tokenizer) {
  return {.limits = {.vocab = tokenizer.vocab_size(), .context_tokens = 100, .has_tokenizer = true},
          .tokenizer = &tokenizer,
          .chat_template = FindChatTemplate("billa")};
}

ChatInput AskingWithAStopOfItsOwn() {
  ChatInput input{.messages = {{.role = "user", .content = "hi"}}};
  input.options.max_tokens = 5;
  input.options.stop = {"bye"};
  return input;
}

TEST(RequestServiceTest, AChatEndsAtTheTemplatesStopStringsToo) {
  const FakeTokenizer tokenizer(Bytes());
  const RequestService service(OptionsOf(tokenizer));
  const auto request = service.MakeRequest(AskingWithAStopOfItsOwn(), NeverStop);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->stop, ElementsAre("bye", "Human:"));
}

// An answer about BELLE's own prompts has "Human:" in it.
TEST(RequestServiceTest, ButNotWhereTheServerIsToldThatItMayHoldThem) {
  const FakeTokenizer tokenizer(Bytes());
  RequestService::Options options = OptionsOf(tokenizer);
  options.template_stop = false;
  const RequestService service(options);
  const auto request = service.MakeRequest(AskingWithAStopOfItsOwn(), NeverStop);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->stop, ElementsAre("bye"));
}

}  // namespace
}  // namespace bellwether
