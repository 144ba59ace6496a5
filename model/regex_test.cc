#include "model/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bellwether {
namespace {

using testing::ElementsAre;

std::vector<std::string> AllMatches(const char* pattern, const std::string& text) {
  const auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  Regex::Matches matches(*regex, text);
  std::vector<std::string> found;
  while (true) {
    const auto match = matches.Next();
    EXPECT_TRUE(match.ok()) << match.status();
    if (!match.ok() || !match->has_value()) return found;
    found.push_back(text.substr((*match)->begin, (*match)->end - (*match)->begin));
  }
}

TEST(RegexTest, FlattensNestedClasses) {
  EXPECT_EQ(*OnigurumaToPcre2(" ?[^(a|[.,!])]+"), " ?[^(a|.,!)]+");
  EXPECT_EQ(*OnigurumaToPcre2("[]a[b]]"), "[]ab]");
  EXPECT_EQ(*OnigurumaToPcre2(R"(\[[\]\[]\])"), R"(\[[\]\[]\])");
  EXPECT_EQ(*OnigurumaToPcre2("[[:alpha:]_]"), "[[:alpha:]_]");
  EXPECT_EQ(OnigurumaToPcre2("[a[^b]]").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(OnigurumaToPcre2("[a&&b]").status().code(), absl::StatusCode::kUnimplemented);
}

TEST(RegexTest, WhitespaceIsUnicodes) {
  EXPECT_THAT(AllMatches(R"(\s+)", "a \u00A0\u3000b\u180Ec\u200Bd\u0085"),
              ElementsAre(" \u00A0\u3000", "\u0085"));
  EXPECT_THAT(AllMatches(R"(\S+)", "a\u3000b\u180E"), ElementsAre("a", "b\u180E"));
  EXPECT_THAT(AllMatches(R"([^\s]+)", "a\u3000b"), ElementsAre("a", "b"));
}

TEST(RegexTest, BloomPattern) {
  EXPECT_THAT(AllMatches(" ?[^(\\s|[.,!?…。，、।۔،])]+", "你好，有什么 吗？(a|b) c. d"),
              ElementsAre("你好", "有什么", " 吗？", "a", "b", " c", " d"));
}

TEST(RegexTest, EmptyMatchesAreSkipped) {
  EXPECT_THAT(AllMatches("b*", "aba"), ElementsAre("b"));
  EXPECT_THAT(AllMatches("x*", "你好"), ElementsAre());
  EXPECT_THAT(AllMatches("", "abc"), ElementsAre());
}

TEST(RegexTest, ErrorsQuoteThePattern) {
  const auto regex = Regex::Compile("a(b");
  EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(regex.status().message(), testing::HasSubstr("\"a(b\""));
  EXPECT_FALSE(Regex::Compile(std::string(100000, 'a')).ok());
}

TEST(RegexTest, CostlyPatternsEndWithAnError) {
  const auto regex = Regex::Compile("(?:a|aa)+[bc]");
  ASSERT_TRUE(regex.ok());
  const std::string text(200, 'a');
  Regex::Matches matches(*regex, text);
  EXPECT_EQ(matches.Next().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace bellwether
