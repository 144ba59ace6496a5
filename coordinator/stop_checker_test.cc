#include "coordinator/stop_checker.h"

#include <random>
#include <string>
#include <vector>

#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

// What a matcher gives for pieces, and whether it stopped.
std::pair<std::string, bool> Match(const std::vector<std::string>& stops,
                                   const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string out;
  for (const std::string& piece : pieces) {
    if (matcher.Push(piece, &out)) return {out, true};
  }
  return {out + matcher.Flush(), false};
}

TEST(StopMatcherTest, CutsBeforeTheStopWhereverThePiecesEnd) {
  EXPECT_EQ(Match({"STOP"}, {"go STOP now"}), std::pair(std::string("go "), true));
  EXPECT_EQ(Match({"STOP"}, {"go S", "TO", "P now"}), std::pair(std::string("go "), true));
  EXPECT_EQ(Match({"STOP"}, {"STOP"}), std::pair(std::string(""), true));
  EXPECT_EQ(Match({"STOP"}, {"ST", "OOP S", "TO"}), std::pair(std::string("STOOP STO"), false));
  EXPECT_EQ(Match({}, {"any", "thing"}), std::pair(std::string("anything"), false));
  EXPECT_EQ(Match({""}, {"any"}), std::pair(std::string("any"), false));
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher matcher({"aab", "bc"});
  std::string out;
  EXPECT_FALSE(matcher.Push("xaaa", &out));
  EXPECT_EQ(out, "xa");
  EXPECT_FALSE(matcher.Push("", &out));
  EXPECT_EQ(out, "xa");
  EXPECT_FALSE(matcher.Push("c", &out));
  EXPECT_EQ(out, "xaaac");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, TheFirstCompleteOneWinsThenTheLongest) {
  EXPECT_EQ(Match({"abcd", "bc"}, {"abcd"}), std::pair(std::string("a"), true));
  EXPECT_EQ(Match({"c", "abc"}, {"ab", "c"}), std::pair(std::string(""), true));
  EXPECT_EQ(Match({"abab"}, {"aab", "abab"}), std::pair(std::string("a"), true));
}

TEST(StopMatcherTest, AgreesWithSearchingTheWholeText) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const auto word = [&](int least, int most) {
      std::string text(least + random() % (most - least + 1), 'a');
      for (char& c : text) c = "ab\n"[random() % 3];
      return text;
    };
    std::vector<std::string> stops, pieces;
    for (int i = random() % 3; i >= 0; --i) stops.push_back(word(1, 5));
    std::string whole;
    for (int i = random() % 8; i >= 0; --i) {
      pieces.push_back(word(0, 4));
      whole += pieces.back();
    }
    size_t end = std::string::npos, begin = whole.size();
    for (const std::string& stop : stops) {
      const size_t at = whole.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        end = at + stop.size();
        begin = at;
      }
    }
    EXPECT_EQ(Match(stops, pieces), std::pair(whole.substr(0, begin), end != std::string::npos)) << round;
  }
}

// Token 0 is special; 3, 4, 5 are the bytes of 你.
FakeTokenizer Words() { return FakeTokenizer({"", "ab", "c", "\xE4", "\xBD", "\xA0", "好"}); }

TEST(StopCheckerTest, AnEndingTokenEndsWithoutItsText) {
  const FakeTokenizer tokenizer = Words();
  StopChecker checker(&tokenizer, {.ending_tokens = {0, 2}, .tokens_max = 10});
  const StopChecker::Verdict before = checker.Push(1);
  EXPECT_EQ(before.text, "ab");
  EXPECT_FALSE(before.ending_token);
  const StopChecker::Verdict verdict = checker.Push(2);
  EXPECT_EQ(verdict.text, "");
  EXPECT_EQ(verdict.finish, FinishReason::kStop);
  EXPECT_TRUE(verdict.ending_token);
  EXPECT_EQ(checker.tokens(), 2);
}

TEST(StopCheckerTest, HeldTextIsGivenWhenAnotherReasonEndsTheAnswer) {
  const FakeTokenizer tokenizer = Words();
  StopChecker by_token(&tokenizer, {.ending_tokens = {0}, .stop = {"abc"}, .tokens_max = 10});
  EXPECT_EQ(by_token.Push(1).text, "");
  EXPECT_EQ(by_token.Push(0).text, "ab");

  StopChecker by_length(&tokenizer, {.stop = {"abc"}, .tokens_max = 2});
  EXPECT_EQ(by_length.Push(2).text, "c");
  const StopChecker::Verdict verdict = by_length.Push(1);
  EXPECT_EQ(verdict.text, "ab");
  EXPECT_EQ(verdict.finish, FinishReason::kLength);

  StopChecker cancelled(&tokenizer, {.stop = {"abc"}, .tokens_max = 9});
  EXPECT_EQ(cancelled.Push(1).text, "");
  EXPECT_EQ(cancelled.Push(3).text, "");
  EXPECT_EQ(cancelled.Flush(), "ab\xEF\xBF\xBD");
}

TEST(StopCheckerTest, CharactersInSeveralTokensAndStopsInSeveralCharacters) {
  const FakeTokenizer tokenizer = Words();
  StopChecker checker(&tokenizer, {.stop = {"你好"}, .tokens_max = 10});
  EXPECT_EQ(checker.Push(1).text, "ab");
  for (const TokenId byte : {3, 4, 5}) EXPECT_EQ(checker.Push(byte).text, "");
  const StopChecker::Verdict other = checker.Push(2);
  EXPECT_EQ(other.text, "你c");
  for (const TokenId byte : {3, 4, 5}) EXPECT_EQ(checker.Push(byte).text, "");
  const StopChecker::Verdict verdict = checker.Push(6);
  EXPECT_EQ(verdict.text, "");
  EXPECT_EQ(verdict.finish, FinishReason::kStop);
}

TEST(StopCheckerTest, AStopOnTheLastTokenIsAStop) {
  const FakeTokenizer tokenizer = Words();
  StopChecker checker(&tokenizer, {.stop = {"c"}, .tokens_max = 1});
  EXPECT_EQ(checker.Push(2).finish, FinishReason::kStop);
}

TEST(StopCheckerTest, StopStringsBeforeTokensMinDoNotEnd) {
  const FakeTokenizer tokenizer = Words();
  StopChecker checker(&tokenizer, {.stop = {"abc"}, .tokens_min = 3, .tokens_max = 10});
  EXPECT_EQ(checker.Push(1).text, "ab");
  EXPECT_EQ(checker.Push(2).text, "c");
  EXPECT_EQ(checker.Push(1).text, "");
  EXPECT_EQ(checker.Push(2).finish, FinishReason::kStop);
}

TEST(StopCheckerTest, WithoutATokenizerThereIsNoText) {
  StopChecker checker(nullptr, {.ending_tokens = {7}, .stop = {"abc"}, .tokens_max = 2});
  EXPECT_EQ(checker.Push(5).text, "");
  EXPECT_EQ(checker.Flush(), "");
  EXPECT_EQ(checker.Push(6).finish, FinishReason::kLength);
}

}  // namespace
}  // namespace bellwether
