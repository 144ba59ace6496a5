#include "common/log.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(LogTest, NoTextCanLookLikeALineOfTheLog) {
  EXPECT_EQ(LogText("role a\n2026-01-01T00:00:00.000 error   forged"),
            "role a\n    2026-01-01T00:00:00.000 error   forged");
  EXPECT_EQ(LogText("a\r\x1b[2Jb\tc\x7f"), "a\\x0d\\x1b[2Jb\\x09c\\x7f");
  EXPECT_EQ(LogText("a\nb\n\n"), "a\n    b");
  EXPECT_EQ(LogText("no model at /m\xff"), "no model at /m\\xff");
  EXPECT_EQ(LogText("高 is no control character"), "高 is no control character");
}

}  // namespace
}  // namespace bellwether
