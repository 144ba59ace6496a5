#include "common/log.h"

#include <unistd.h>

#include <functional>

#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(LogTest, NoTextCanLookLikeALineOfTheLog) {
  EXPECT_EQ(LogText("role a\n2026-01-01T00:00:00.000 error   forged"),
            "role a\n    2026-01-01T00:00:00.000 error   forged");
  EXPECT_EQ(LogText("a\r\x1b[2Jb\tc\x7f"), "a\\x0d\\x1b[2Jb\\x09c\\x7f");
  EXPECT_EQ(LogText("a\u009b2J\u0080"), "a\\xc2\\x9b2J\\xc2\\x80");
  EXPECT_EQ(LogText("\u00a0\u00bf"), "\u00a0\u00bf");
  EXPECT_EQ(LogText("a\nb\n\n"), "a\n    b");
  EXPECT_EQ(LogText("no model at /m\xff"), "no model at /m\\xff");
  EXPECT_EQ(LogText("高 is no control character"), "高 is no control character");
}

// What `write` puts on stderr.
std::string Written(const LogOptions& options, const std::function<void()>& write) {
  InitLogging("test", options);
  testing::internal::CaptureStderr();
  write();
  SetLogFields({});
  InitLogging("test", {.level = "warning"});
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, FieldsSayWhatALineIsAbout) {
  const std::string text = Written({}, [] {
    SetLogFields({{"worker", "w-1"}, {"epoch", "4"}});
    Log(LogLevel::kInfo, "ended", {{"request", "r-1"}});
    LogDebug("not of this level");
    Log(LogLevel::kWarning, "ended", {{"request", "r 2] [epoch=5"}});
  });
  EXPECT_THAT(text, testing::HasSubstr("] ended [request=r-1 worker=w-1 epoch=4]\n"));
  EXPECT_THAT(text, testing::HasSubstr("] ended [request=\"r 2] [epoch=5\" worker=w-1 epoch=4]\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("not of this level")));
}

// Whatever is in a message or a field: a line is an object, and no field is taken for another.
TEST(LogTest, JsonIsAnObjectALine) {
  const std::string text = Written({.format = "json"}, [] {
    SetLogFields({{"epoch", "4"}});
    Log(LogLevel::kError, "two\nlines, \"quoted\", \xff\n", {{"request", "r\",\"epoch\":\"5"}});
    LogInfo("高");
  });
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 2) << text;
  const auto first = ParseJson(lines[0]);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)["level"].text(), "error");
  EXPECT_EQ((*first)["program"].text(), "test");
  EXPECT_EQ((*first)["pid"].get<int>(), getpid());
  EXPECT_EQ((*first)["message"].text(), "two\nlines, \"quoted\", \\xff");
  EXPECT_EQ((*first)["request"].text(), "r\",\"epoch\":\"5");
  EXPECT_EQ((*first)["epoch"].text(), "4");
  absl::Time time;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, (*first)["time"].text(), &time, nullptr)) << lines[0];
  const auto second = ParseJson(lines[1]);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)["message"].text(), "高");
}

}  // namespace
}  // namespace bellwether
