#include "common/quote.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(QuoteTest, EscapesAndCuts) {
  EXPECT_EQ(Quoted("wizard"), "\"wizard\"");
  EXPECT_EQ(Quoted("a\n\"b\"\x1b\xff"), "\"a\\n\\\"b\\\"\\x1b\\xff\"");
  EXPECT_EQ(Quoted(std::string(64, 'x')), "\"" + std::string(64, 'x') + "\"");
  EXPECT_EQ(Quoted(std::string(65, 'x')), "\"" + std::string(64, 'x') + "...\" (65 bytes)");
}

TEST(QuoteTest, PrintableIsUtf8AndLeavesUtf8Alone) {
  EXPECT_EQ(Printable("a\n高 \x1b"), "a\n高 \x1b");
  EXPECT_EQ(Printable("m\xE9.gguf"), "m\\xe9.gguf");
  EXPECT_EQ(Printable("\xE9\xAB"), "\\xe9\\xab");  // the start of a character
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");
}

TEST(QuoteTest, CutsBetweenCharacters) {
  EXPECT_EQ(CutText("abc", 3), "abc");
  EXPECT_EQ(CutText("abc", 2), "ab");
  EXPECT_EQ(CutText("a高b", 4), "a高");
  EXPECT_EQ(CutText("a高b", 3), "a");
  EXPECT_EQ(CutText("a高b", 2), "a");
  EXPECT_EQ(CutText("a高b", 0), "");
  // Not UTF-8: cut somewhere.
  EXPECT_EQ(CutText(std::string(9, '\x80'), 8), std::string(5, '\x80'));
}

TEST(QuoteTest, AHeaderHoldsAPlainWordAsItIs) {
  for (const char* word : {"", "a", "req-1", "!~"}) EXPECT_TRUE(IsPlainWord(word)) << word;
  for (const char* other : {"a b", "a\n", "a\r", "\x7f", "\xff", "高"})
    EXPECT_FALSE(IsPlainWord(other)) << other;
}

}  // namespace
}  // namespace bellwether
