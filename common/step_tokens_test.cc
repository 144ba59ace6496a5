#include "common/step_tokens.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(StepTokensTest, AutoOrANumber) {
  EXPECT_EQ(*ParseStepTokens("auto"), kStepTokensAuto);
  EXPECT_EQ(*ParseStepTokens("1"), 1);
  EXPECT_EQ(*ParseStepTokens("65536"), kStepTokensMax);
  for (const char* text : {"", "0", "-1", "65537", "4294967808", "1e3", "Auto", "512 tokens"}) {
    const auto refused = ParseStepTokens(text);
    EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << text;
    EXPECT_EQ(refused.status().message(),
              std::string("step-tokens is ") + text + ", allowed is auto or 1 to 65536");
  }
}

}  // namespace
}  // namespace bellwether
