#include "coordinator/trace_context.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kSpan[] = "00f067aa0ba902b7";

std::string Header(const std::string& version, const std::string& trace, const std::string& span,
                   const std::string& flags) {
  return absl::StrCat(version, "-", trace, "-", span, "-", flags);
}

TEST(TraceContextTest, TheIdOfTheTrace) {
  EXPECT_EQ(TraceIdOf(Header("00", kTrace, kSpan, "01")), kTrace);
  EXPECT_EQ(TraceIdOf(Header("cc", kTrace, kSpan, "01-what-will-be")), kTrace);  // of a later version
}

TEST(TraceContextTest, WhatIsNoneHasNone) {
  const std::string zeros(32, '0');
  for (const std::string& header :
       {std::string(), std::string("00"), Header("ff", kTrace, kSpan, "01"), Header("0", kTrace, kSpan, "01"),
        Header("00", zeros, kSpan, "01"), Header("00", kTrace, zeros.substr(16), "01"),
        Header("00", std::string(kTrace) + "0", kSpan, "01"),
        Header("00", "4BF92F3577B34DA6A3CE929D0E0E4736", kSpan, "01"), Header("00", kTrace, kSpan, "1"),
        Header("00", kTrace, kSpan, "01-more"), Header("00", kTrace, kSpan, "01 "),
        Header("cc", kTrace, kSpan, "01-\xff\x80x"), Header("cc", kTrace, kSpan, "01-\n"),
        Header("cc", kTrace, kSpan, "01-") + std::string(600, 'x')}) {
    EXPECT_EQ(TraceIdOf(header), "") << header;
  }
}

}  // namespace
}  // namespace bellwether
