#include "common/utf8.h"

#include <gtest/gtest.h>

namespace bellwether {
namespace {

using Kind = Utf8Step::Kind;

TEST(Utf8Test, ReadsEveryCodePointThatItWrites) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    const Utf8Step step = ReadUtf8(text);
    ASSERT_EQ(step.kind, Kind::kCharacter);
    ASSERT_EQ(step.length, text.size());
    ASSERT_EQ(step.code_point, c);
  }
}

TEST(Utf8Test, GroupsBrokenBytesAsTheStandardRecommends) {
  EXPECT_EQ(ToValidUtf8("a\xFF\xFE z"), "a\uFFFD\uFFFD z");
  EXPECT_EQ(ToValidUtf8("\xE4\xBDx"), "\uFFFDx");                          // a cut character is one
  EXPECT_EQ(ToValidUtf8("\xF0\x9F\x98"), "\uFFFD");                        // at the end, too
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // a surrogate
  EXPECT_EQ(ToValidUtf8("\xC0\x80"), "\uFFFD\uFFFD");                      // too long a form
  EXPECT_EQ(ToValidUtf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  EXPECT_EQ(ReplaceEachBrokenByte("\xE4\xBDx"), "\uFFFD\uFFFDx");
}

TEST(Utf8Test, TellsUnfinishedFromBroken) {
  EXPECT_EQ(ReadUtf8("\xE4\xBD").kind, Kind::kIncomplete);
  EXPECT_EQ(ReadUtf8("\xE4").kind, Kind::kIncomplete);
  EXPECT_EQ(ReadUtf8("\xE0\x80").kind, Kind::kBroken);
  EXPECT_EQ(ReadUtf8("").kind, Kind::kIncomplete);
  EXPECT_EQ(ValidUtf8Prefix("ab\u00E9\xE4"), 4u);
}

}  // namespace
}  // namespace bellwether
