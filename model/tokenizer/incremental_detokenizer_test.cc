#include "model/tokenizer/incremental_detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "common/utf8.h"

namespace bellwether {
namespace {

// Token i stands for bytes_[i]; "" is a special token spelled "<i>".
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> bytes, bool strips = true)
      : bytes_(std::move(bytes)), strips_(strips) {
    for (size_t i = 0; i < bytes_.size(); ++i) pieces_.push_back("<" + std::to_string(i) + ">");
  }
  absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece>, bool,
                                                    const EncodeLimits&) const override {
    return absl::UnimplementedError("not needed");
  }
  size_t FewestTokens(std::string_view) const override { return 0; }
  std::string_view TokenBytes(TokenId id) const override { return bytes_.at(id); }
  std::string_view TokenPiece(TokenId id) const override { return pieces_.at(id); }
  bool IsSpecial(TokenId id) const override { return bytes_.at(id).empty(); }
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  std::optional<TokenId> bos_id() const override { return std::nullopt; }
  const std::vector<TokenId>& eos_ids() const override { return none_; }
  std::optional<TokenId> FindToken(std::string_view) const override { return std::nullopt; }
  bool strips_leading_space() const override { return strips_; }

 private:
  std::vector<std::string> bytes_, pieces_;
  std::vector<TokenId> none_;
  bool strips_;
};

TEST(IncrementalDetokenizerTest, HoldsBackUnfinishedCharacters) {
  const FakeTokenizer tokenizer({"\xF0", "\x9F", "\x99", "\x82", "!"});
  IncrementalDetokenizer detokenizer(&tokenizer, {});
  EXPECT_EQ(detokenizer.Push(0), "");
  EXPECT_EQ(detokenizer.Push(1), "");
  EXPECT_EQ(detokenizer.Push(2), "");
  EXPECT_EQ(detokenizer.Push(3), "\U0001F642");
  EXPECT_EQ(detokenizer.Push(4), "!");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(IncrementalDetokenizerTest, BrokenBytesAppearAsSoonAsTheyAreCertain) {
  const FakeTokenizer tokenizer({"\xF0\x9F", "a", "\xFF"});
  IncrementalDetokenizer detokenizer(&tokenizer, {});
  EXPECT_EQ(detokenizer.Push(0), "");
  EXPECT_EQ(detokenizer.Push(1), "\uFFFDa");
  EXPECT_EQ(detokenizer.Push(2), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(IncrementalDetokenizerTest, StripsOneSpaceOnlyAtTheStartOfAText) {
  const FakeTokenizer tokenizer({"", "  a", " b"});
  IncrementalDetokenizer at_start(&tokenizer, {.at_text_start = true});
  EXPECT_EQ(at_start.Push(0), "");
  EXPECT_EQ(at_start.Push(1), " a");
  EXPECT_EQ(at_start.Push(2), " b");
  IncrementalDetokenizer after_prompt(&tokenizer, {.at_text_start = false});
  EXPECT_EQ(after_prompt.Push(1), "  a");
  const FakeTokenizer keeps({" b"}, /*strips=*/false);
  IncrementalDetokenizer kept(&keeps, {.at_text_start = true});
  EXPECT_EQ(kept.Push(0), " b");
}

TEST(IncrementalDetokenizerTest, SpecialTokensAreSkippedUnlessAskedFor) {
  const FakeTokenizer tokenizer({"", "\xE4", "\xBD\xA0"});
  IncrementalDetokenizer skipping(&tokenizer, {});
  EXPECT_EQ(skipping.Push(1), "");
  EXPECT_EQ(skipping.Push(0), "");  // does not tear the character
  EXPECT_EQ(skipping.Push(2), "\u4F60");
  IncrementalDetokenizer showing(&tokenizer, {.skip_special = false});
  EXPECT_EQ(showing.Push(1), "");
  EXPECT_EQ(showing.Push(0), "\uFFFD<0>");
}

TEST(IncrementalDetokenizerTest, ACopyGoesOnByItself) {
  const FakeTokenizer tokenizer({"\xC3", "\xA9", "\xA8"});
  IncrementalDetokenizer one(&tokenizer, {});
  EXPECT_EQ(one.Push(0), "");
  IncrementalDetokenizer other = one;
  EXPECT_EQ(one.Push(1), "\u00E9");
  EXPECT_EQ(other.Push(2), "\u00E8");
}

TEST(IncrementalDetokenizerTest, RandomBytesGiveWhatTheWholeGives) {
  std::vector<std::string> bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(std::string(1, static_cast<char>(i)));
  const FakeTokenizer tokenizer(bytes, /*strips=*/false);
  std::mt19937 random(7);
  // Bytes that build characters often enough.
  const std::string pool = "a \xC3\xA9\xE4\xBD\xA0\xF0\x9F\x99\x82\xFF\xED\x80\xBF\xF4\x90";
  for (int round = 0; round < 2000; ++round) {
    std::string whole, pieces;
    IncrementalDetokenizer detokenizer(&tokenizer, {});
    for (unsigned i = 0; i < random() % 12; ++i) {
      const char c = pool[random() % pool.size()];
      whole += c;
      const std::string piece = detokenizer.Push(static_cast<unsigned char>(c));
      ASSERT_EQ(ValidUtf8Prefix(piece), piece.size());
      pieces += piece;
    }
    ASSERT_EQ(pieces + detokenizer.Flush(), ToValidUtf8(whole));
  }
}

}  // namespace
}  // namespace bellwether
