#include "cli/load/openai_stream.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr std::string_view kStream =
    ": a comment that keeps the connection\n\n"
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n"
    "data:{\"choices\":[{\"text\":\"lo, world\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n"
    "data: [DONE]\n\n";

TEST(OpenAiStream, TokensAreThoseOfUsageNotOfEventsHoweverTheBodyIsCut) {
  for (size_t piece = 1; piece <= kStream.size(); ++piece) {
    OpenAiStream stream;
    int texts = 0;
    for (size_t at = 0; at < kStream.size(); at += piece) {
      ASSERT_TRUE(stream.Add(kStream.substr(at, piece), [&] { ++texts; }).ok());
    }
    EXPECT_EQ(texts, 2);
    EXPECT_TRUE(stream.done());
    EXPECT_TRUE(stream.has_usage());
    EXPECT_EQ(stream.prompt_tokens(), 7);
    EXPECT_EQ(stream.generated_tokens(), 5);
    EXPECT_EQ(stream.error(), "");
  }
}

TEST(OpenAiStream, AnErrorWithinTheStreamIsAnError) {
  OpenAiStream stream;
  const auto ignore = [] {};
  ASSERT_TRUE(
      stream.Add("data: {\"error\":{\"message\":\"a worker is gone\",\"type\":\"unavailable\"}}\n", ignore)
          .ok());
  EXPECT_EQ(stream.error(), "unavailable");
  EXPECT_FALSE(stream.done());
}

TEST(OpenAiStream, WhatIsNoSuchStreamIsRefused) {
  const auto ignore = [] {};
  EXPECT_FALSE(OpenAiStream().Add("data: {\n", ignore).ok());
  EXPECT_FALSE(OpenAiStream().Add(std::string(OpenAiStream::kLineBytesMax + 1, 'x'), ignore).ok());
}

TEST(OpenAiErrorKind, IsTheCodeOrTheType) {
  EXPECT_EQ(OpenAiErrorKind(R"({"error": {"code": "model_not_found", "type": "invalid_request_error"}})"),
            "model_not_found");
  EXPECT_EQ(OpenAiErrorKind(R"({"error": {"code": null, "type": "overloaded"}})"), "overloaded");
  EXPECT_EQ(OpenAiErrorKind(R"({"error": "no"})"), "error");
  EXPECT_EQ(OpenAiErrorKind("<html>"), "");
}

}  // namespace
}  // namespace bellwether
