// Long texts: encoding can be stopped, gives up early, and cuts what it may cut without a change.

#include "model/tokenizer/encode_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "model/tokenizer/ranked_bpe.h"
#include "model/tokenizer/scored_bpe.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {
namespace {

constexpr size_t kLong = 128 << 10;

std::string Repeated(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

class EncodeLimitsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto loaded = LoadTokenizerFromDirectory(std::string("tests/goldens/tokenizer/") + GetParam());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = *std::move(loaded);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

// Prose, one word without an end, spaces, what joins with nothing.
const char* const kUnits[] = {"hello world ", "a", " ", "\xF0\x9F\x90\x91", "x\n"};

TEST_P(EncodeLimitsTest, ALongTextAsksWhetherToGoOnAgainAndAgain) {
  for (const char* unit : kUnits) {
    const std::string text = Repeated(unit, kLong);
    size_t asked = 0;
    const auto count = [&asked] {
      ++asked;
      return absl::OkStatus();
    };
    ASSERT_TRUE(tokenizer_->Encode(text, {}, {.stop = count}).ok());
    const bool may_vanish = unit == std::string(" ");
    EXPECT_GE(asked, may_vanish ? 1 : text.size() / (64 << 10)) << "'" << unit << "'";
    // Somewhere in the middle, wherever that is: normalising, splitting or merging.
    const size_t middle = asked / 2 + 1;
    asked = 0;
    const auto stop = [&asked, middle] {
      return ++asked < middle ? absl::OkStatus() : absl::CancelledError("the client has gone");
    };
    EXPECT_TRUE(absl::IsCancelled(tokenizer_->Encode(text, {}, {.stop = stop}).status()));
    EXPECT_EQ(asked, middle) << "it went on after being told to stop";
  }
}

// Of bytes, pieces and merges; a heap adds a logarithm of comparisons.
TEST_P(EncodeLimitsTest, TwiceTheTextIsTwiceTheWork) {
  for (const char* unit : kUnits) {
    size_t asked = 0;
    const auto count = [&asked] {
      ++asked;
      return absl::OkStatus();
    };
    ASSERT_TRUE(tokenizer_->Encode(Repeated(unit, kLong / 2), {}, {.stop = count}).ok());
    const size_t asked_for_half = std::exchange(asked, 0);
    ASSERT_TRUE(tokenizer_->Encode(Repeated(unit, kLong), {}, {.stop = count}).ok());
    EXPECT_LE(asked, 2 * asked_for_half + 4) << "'" << unit << "'";
  }
}

TEST_P(EncodeLimitsTest, WhatIsCertainlyTooLongIsNotEvenBegun) {
  const std::string text = Repeated("hello world ", kLong);
  const size_t fewest = tokenizer_->FewestTokens(text);
  if (fewest == 0) return;  // it can make a text shorter
  size_t asked = 0;
  const auto count = [&asked] {
    ++asked;
    return absl::OkStatus();
  };
  EXPECT_TRUE(
      absl::IsOutOfRange(tokenizer_->Encode(text, {}, {.tokens_max = fewest - 1, .stop = count}).status()));
  EXPECT_EQ(asked, 0u);
}

// Of those whose steps cannot make a text shorter, all know it. NFC can (qwen2, and smollm has none), as can
// spaces that are dropped.
TEST_P(EncodeLimitsTest, KnowsWhetherItCanShrinkAText) {
  const std::string name = GetParam();
  const bool shrinks = name == "qwen2" || name == "spm_rules";
  EXPECT_EQ(tokenizer_->FewestTokens(std::string(kLong, ' ')) == 0, shrinks);
}

INSTANTIATE_TEST_SUITE_P(All, EncodeLimitsTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "bloom", "llama_spm",
                                         "llama_spm_extended", "spm_rules", "llama_fast",
                                         "llama_fast_metaspace"),
                         [](const auto& info) { return std::string(info.param); });

// Refusing by bytes alone would be wrong here.
TEST(EncodeLimits, AMegabyteOfSpacesCanBeAShortPrompt) {
  auto tokenizer = LoadTokenizerFromDirectory("tests/goldens/tokenizer/spm_rules");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode("a" + std::string(1 << 20, ' ') + "b", {}, {.tokens_max = 8});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, *(*tokenizer)->Encode("a b", {}));
}

// A byte-level vocabulary of "a", "aa" and " ": real ones lack a few bytes, too.
RankedBpeSpec FewBytes() {
  RankedBpeSpec spec;
  spec.byte_level = true;
  spec.vocabulary = {{"a", 0}, {"aa", 1}, {" ", 2}};
  spec.merges = {{0, 0, 1}};
  return spec;
}

std::unique_ptr<Tokenizer> TokenizerOf(RankedBpeSpec spec) {
  TokenizerParts parts;
  for (const char* piece : {"a", "aa", " "}) parts.entries.push_back({.piece = piece, .bytes = piece});
  parts.encoder = MakeRankedBpe(std::move(spec));
  return ComposeTokenizer(std::move(parts));
}

// A vocabulary without a byte for "\x01" once let no text at all be refused before it was read.
TEST(EncodeLimits, BytesThatAVocabularyLacksAreNotCounted) {
  const auto tokenizer = TokenizerOf(FewBytes());
  EXPECT_EQ(tokenizer->FewestTokens("a aa"), 1u);
  EXPECT_EQ(tokenizer->FewestTokens(std::string(1000, '\x01')), 0u);
  const std::string text = "aa" + std::string(1000, '\x01') + "aa ";
  EXPECT_EQ(tokenizer->FewestTokens(text), 2u);
  EXPECT_EQ(*tokenizer->Encode(text, {}, {.tokens_max = 3}), (std::vector<TokenId>{1, 1, 2}));
  size_t asked = 0;
  const auto count = [&asked] {
    ++asked;
    return absl::OkStatus();
  };
  const std::string words = Repeated("aaa\x02 ", kLong);
  EXPECT_TRUE(absl::IsOutOfRange(tokenizer->Encode(words, {}, {.tokens_max = 100, .stop = count}).status()));
  EXPECT_EQ(asked, 0u);
}

// Where a step puts other bytes in, the text does not tell what is left of it.
TEST(EncodeLimits, BytesThatAStepMakesMayBeLacking) {
  RankedBpeSpec vanishing = FewBytes();
  vanishing.normalizer.Add(TextNormalizer::Replace{.from = "b", .to = "\x01\x02"});
  RankedBpeSpec marked = FewBytes();
  marked.pre_tokenizer.Add(PreTokenizer::Metaspace{});
  RankedBpeSpec prefixed = FewBytes();
  prefixed.normalizer.Add(TextNormalizer::Prepend{.text = "\x01"});
  EXPECT_EQ(TokenizerOf(std::move(vanishing))->FewestTokens("aaaa"), 0u);
  EXPECT_EQ(TokenizerOf(std::move(marked))->FewestTokens("aaaa"), 0u);
  EXPECT_EQ(TokenizerOf(std::move(prefixed))->FewestTokens("aaaa"), 1u) << "a character has up to four bytes";
}

// Nor where what is lacking becomes one unknown token.
TEST(EncodeLimits, ARunOfUnknownBytesMayBeOneToken) {
  RankedBpeSpec fused = FewBytes();
  fused.unknown_id = 2;
  fused.fuse_unknown = true;
  RankedBpeSpec single = FewBytes();
  single.unknown_id = 2;
  EXPECT_EQ(TokenizerOf(std::move(fused))->FewestTokens(std::string(40, '\x01')), 0u);
  EXPECT_EQ(TokenizerOf(std::move(single))->FewestTokens(std::string(40, '\x01')), 10u);
}

// A long text is encoded word by word, so to speak, and nobody can tell.
TEST(EncodeLimits, ALongTextHasTheTokensOfItsParts) {
  auto tokenizer = LoadTokenizerFromDirectory("tests/goldens/tokenizer/llama_spm");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const EncodeOptions plain{.add_special_tokens = false};
  const std::vector<std::string> parts = {"The quick brown fox",      "jumps    over",
                                          "\xE4\xBD\xA0\xE5\xA5\xBD", "1234567890\n\n",
                                          "caf\xC3\xA9 \xFF!",        std::string(3000, 'x')};
  std::string text;
  std::vector<TokenId> expected;
  for (int i = 0; i < 300; ++i) {
    const std::string& part = parts[static_cast<size_t>(i * i + i / 7) % parts.size()];
    text += (i == 0 ? "" : " ") + part;
    const auto ids = (*tokenizer)->Encode(part, plain);
    ASSERT_TRUE(ids.ok());
    expected.insert(expected.end(), ids->begin(), ids->end());
  }
  EXPECT_EQ(*(*tokenizer)->Encode(text, plain), expected);
}

// Where a piece spans a space, a text may not be cut there.
TEST(EncodeLimits, PiecesThatSpanSpacesAreFoundInLongTextsToo) {
  using Type = SentencepieceModel::PieceType;
  SentencepieceModel model;
  model.add_dummy_prefix = false;
  model.remove_extra_whitespaces = false;
  model.unknown_id = 0;
  model.pieces = {{"<unk>", 0, Type::kUnknown},
                  {"a", -3},
                  {"\xE2\x96\x81", -3},
                  {"a\xE2\x96\x81", -2},
                  {"a\xE2\x96\x81"
                   "a",
                   -1}};
  auto parts = MakeScoredBpe(std::move(model));
  ASSERT_TRUE(parts.ok()) << parts.status();
  const auto tokenizer = ComposeTokenizer(*std::move(parts));
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "a a";
  EXPECT_EQ(*tokenizer->Encode(text, {}), std::vector<TokenId>(2000, 4));
}

}  // namespace
}  // namespace bellwether
