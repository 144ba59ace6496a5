#include "model/tokenizer/unicode_nfc.h"

#include <gtest/gtest.h>

namespace bellwether {
namespace {

TEST(UnicodeNfcTest, ComposesMarks) {
  EXPECT_EQ(ToNfc("e\u0301"), "\u00E9");
  EXPECT_EQ(ToNfc("q\u0307\u0323"), "q\u0323\u0307");  // marks in canonical order
  EXPECT_EQ(ToNfc("a\u0323\u0306"), "\u1EB7");         // two steps
  EXPECT_EQ(ToNfc("\u1100\u1161\u11A8"), "\uAC01");    // Hangul
  EXPECT_EQ(ToNfc("\uAC00\u11A8"), "\uAC01");
}

TEST(UnicodeNfcTest, KeepsWhatMustNotCompose) {
  EXPECT_EQ(ToNfc("\u0915\u093C"), "\u0915\u093C");  // composition exclusion
  EXPECT_EQ(ToNfc("\u0958"), "\u0915\u093C");
  EXPECT_EQ(ToNfc("a\u0300\u0300"), "\u00E0\u0300");  // a mark of the same class blocks
  EXPECT_EQ(ToNfc("a\u0332\u0301"), "\u00E1\u0332");  // one of a lower class does not
}

TEST(UnicodeNfcTest, ReplacesSingletons) {
  EXPECT_EQ(ToNfc("\u212B"), "\u00C5");
  EXPECT_EQ(ToNfc("\uF900"), "\u8C48");
}

TEST(UnicodeNfcTest, LeavesOtherTextAlone) {
  for (const char* text : {"", "plain ASCII\n", "\u4F60\u597D", "\U0001F600", "\u00E9t\u00E9"}) {
    EXPECT_EQ(ToNfc(text), text);
  }
}

TEST(UnicodeNfcTest, NothingComposesAcrossBrokenBytes) {
  EXPECT_EQ(ToNfc("e\xFF\u0301"), "e\xFF\u0301");
  EXPECT_EQ(ToNfc("\xE4\xBD"), "\xE4\xBD");
}

}  // namespace
}  // namespace bellwether
