#include "coordinator/shown_tokens.h"

#include <optional>
#include <utility>

#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

// "bytes" of what is shown, and "id:bytes" where the id matters.
std::vector<std::string> Texts(const std::vector<ShownToken>& tokens) {
  std::vector<std::string> texts;
  for (const ShownToken& token : tokens) texts.push_back(token.bytes);
  return texts;
}

class ShownTokensTest : public ::testing::Test {
 protected:
  std::vector<std::string> Push(std::vector<TokenId> ids, const std::string& text,
                                std::optional<FinishReason> finish = std::nullopt,
                                bool ending_token = false) {
    TokenChunk chunk{.tokens = ids, .text = text, .finish = finish, .ending_token = ending_token};
    for (const TokenId id : ids) chunk.logprobs.push_back({.token = id});
    return Texts(shown_->Push(chunk));
  }
  // 0 is special; 4 and 5 are the halves of "é".
  const FakeTokenizer tokenizer_{{"", "one", " two", "end", "\xC3", "\xA9", "x\xC3"}};
  std::optional<ShownTokens> shown_{std::in_place, &tokenizer_, ShownTokens::Special::kLeftOut};
};

TEST_F(ShownTokensTest, TokensShowWithTheirText) {
  EXPECT_THAT(Push({1}, "one"), ElementsAre("one"));
  EXPECT_THAT(Push({2}, ""), ElementsAre()) << "held back: it may begin a stop string";
  EXPECT_THAT(Push({3}, " twoend", FinishReason::kLength), ElementsAre(" two", "end"));
}

TEST_F(ShownTokensTest, TheStopStringIsLeftOutThoughItBeginsInAToken) {
  EXPECT_THAT(Push({1}, "one"), ElementsAre("one"));
  EXPECT_THAT(Push({2}, " t"), ElementsAre());  // the stop string is "woe"
  EXPECT_THAT(Push({3}, "", FinishReason::kStop), ElementsAre(" t"));
}

TEST_F(ShownTokensTest, NothingShowsOfTokensWithoutText) {
  EXPECT_THAT(Push({1, 0}, "one", FinishReason::kStop), ElementsAre("one"));
}

TEST_F(ShownTokensTest, SpecialTokensAreListedWhereTheyAreCounted) {
  shown_.emplace(&tokenizer_, ShownTokens::Special::kListed);
  EXPECT_THAT(Push({0}, ""), ElementsAre(""));
  EXPECT_THAT(Push({1, 0}, ""), ElementsAre()) << "not before the text of the token before it";
  EXPECT_THAT(Push({2, 0}, "one two", FinishReason::kStop), ElementsAre("one", "", " two", ""));
}

TEST_F(ShownTokensTest, PartsOfACharacterShowTogether) {
  EXPECT_THAT(Push({1, 4}, "one"), ElementsAre("one"));
  EXPECT_THAT(Push({5}, "é"), ElementsAre("\xC3", "\xA9"));
  EXPECT_THAT(Push({6}, "x"), ElementsAre());
  EXPECT_THAT(Push({5}, "é"), ElementsAre("x\xC3", "\xA9"));
}

TEST_F(ShownTokensTest, BrokenBytesCountForTheLastTokenOfThem) {
  EXPECT_THAT(Push({4}, ""), ElementsAre());
  EXPECT_THAT(Push({1}, "\uFFFDone"), ElementsAre("", "\uFFFDone"));
  EXPECT_THAT(Push({5}, "\uFFFD"), ElementsAre("\uFFFD"));
  EXPECT_THAT(Push({4}, "\uFFFD", FinishReason::kLength), ElementsAre("\uFFFD")) << "an unfinished character";
}

// A token that makes U+FFFD of the bytes before it may itself end in the middle of a character. What became
// of its own bytes when the answer ended there was no token's: the text had one U+FFFD more than the tokens.
TEST_F(ShownTokensTest, BrokenBytesMayFollowEachOtherToTheEnd) {
  EXPECT_THAT(Push({4, 4}, "\uFFFD"), ElementsAre(""));
  EXPECT_THAT(Push({4}, "\uFFFD"), ElementsAre("\uFFFD"));
  EXPECT_THAT(Push({4}, "\uFFFD\uFFFD", FinishReason::kLength), ElementsAre("\uFFFD", "\uFFFD\uFFFD"));
}

TEST_F(ShownTokensTest, BrokenBytesMayComeBeforeACharacter) {
  EXPECT_THAT(Push({4, 4}, "\uFFFD"), ElementsAre(""));
  EXPECT_THAT(Push({5}, "é"), ElementsAre("\uFFFD\xC3", "\xA9"));
  EXPECT_THAT(Push({6}, "x"), ElementsAre());
  EXPECT_THAT(Push({1}, "\uFFFDone"), ElementsAre("x", "\uFFFDone"));
}

TEST_F(ShownTokensTest, BrokenBytesAreNotThoseOfTheEndingToken) {
  shown_.emplace(&tokenizer_, ShownTokens::Special::kListed);
  EXPECT_THAT(Push({4, 0}, "\uFFFD", FinishReason::kStop), ElementsAre("\uFFFD", ""));
}

// stop_token_ids may name any token. One whose bytes make a character of those before it was shown with them,
// and the text had U+FFFD; where ending tokens are listed one that is not special was not.
TEST_F(ShownTokensTest, AnEndingTokenHasNoTextWhateverItsBytes) {
  EXPECT_THAT(Push({4}, ""), ElementsAre());
  EXPECT_THAT(Push({5}, "\uFFFD", FinishReason::kStop, /*ending_token=*/true), ElementsAre("\uFFFD"));

  shown_.emplace(&tokenizer_, ShownTokens::Special::kListed);
  EXPECT_THAT(Push({1}, "one"), ElementsAre("one"));
  EXPECT_THAT(Push({3}, "", FinishReason::kStop, /*ending_token=*/true), ElementsAre(""));
}

TEST_F(ShownTokensTest, TokensThatNeverShowAreNotListed) {
  EXPECT_THAT(Push({1, 2, 3}, "", FinishReason::kStop), ElementsAre());
}

}  // namespace
}  // namespace bellwether
