#include "http/origin_rules.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr bool kOnLoopback = true;

TEST(OriginRulesTest, WhatIsNoPageMayAsk) {
  EXPECT_TRUE(OriginRules({}, kOnLoopback).Allows("", "anything"));
}

TEST(OriginRulesTest, TheServersOwnPagesMayAsk) {
  const OriginRules local({}, kOnLoopback);
  EXPECT_TRUE(local.Allows("http://127.0.0.1:7480", "127.0.0.1:7480"));
  EXPECT_TRUE(local.Allows("http://localhost:7480", "localhost:7480"));
  EXPECT_TRUE(local.Allows("http://[::1]:7480", "[::1]:7480"));
  EXPECT_TRUE(local.Allows("http://localhost", "localhost"));
  const OriginRules open({}, !kOnLoopback);
  EXPECT_TRUE(open.Allows("https://chat.example.com", "chat.example.com"));  // a proxy stands before it
}

TEST(OriginRulesTest, OthersMayNot) {
  for (const bool loopback : {true, false}) {
    const OriginRules rules({"https://friend.example"}, loopback);
    EXPECT_FALSE(rules.Allows("https://evil.example", "127.0.0.1:7480"));
    EXPECT_FALSE(rules.Allows("http://localhost:3000", "localhost:7480"));  // another program's page
    EXPECT_FALSE(rules.Allows("null", "127.0.0.1:7480"));                   // a file, a sandbox
    EXPECT_FALSE(rules.Allows("http://friend.example", "127.0.0.1:7480"));
    EXPECT_TRUE(rules.Allows("https://friend.example", "127.0.0.1:7480"));
  }
}

// A page of evil.example whose name now resolves to 127.0.0.1.
TEST(OriginRulesTest, ANameThatPointsToLoopbackMakesNobodyOwn) {
  EXPECT_FALSE(OriginRules({}, kOnLoopback).Allows("http://evil.example:7480", "evil.example:7480"));
  EXPECT_FALSE(
      OriginRules({}, kOnLoopback).Allows("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"));
}

TEST(OriginRulesTest, OnlyAllowedPagesAreToldThatTheyMayRead) {
  const OriginRules rules({"https://friend.example"}, kOnLoopback);
  EXPECT_TRUE(rules.AnswerHeaders("").empty());
  EXPECT_TRUE(rules.AnswerHeaders("http://127.0.0.1:7480").empty());
  const HttpHeaders headers = rules.AnswerHeaders("https://friend.example");
  ASSERT_NE(FindHeader(headers, "Access-Control-Allow-Origin"), nullptr);
  EXPECT_EQ(*FindHeader(headers, "Access-Control-Allow-Origin"), "https://friend.example");
  EXPECT_EQ(*FindHeader(headers, "Vary"), "Origin");
  EXPECT_EQ(
      *FindHeader(OriginRules({"*"}, kOnLoopback).AnswerHeaders("app://x"), "Access-Control-Allow-Origin"),
      "app://x");
}

TEST(OriginRulesTest, AListIsReadAsPeopleWriteIt) {
  const auto rules = OriginRules::Parse("https://Chat.example.com, http://a:8080", kOnLoopback);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_TRUE(rules->Allows("https://chat.example.com", "127.0.0.1:7480"));
  EXPECT_TRUE(rules->Allows("http://a:8080", "127.0.0.1:7480"));
  EXPECT_FALSE(OriginRules::Parse("", kOnLoopback)->Allows("https://a", "127.0.0.1:7480"));
  EXPECT_TRUE(OriginRules::Parse("*", kOnLoopback)->Allows("https://a", "127.0.0.1:7480"));
  // What could never match is an error at the start and not a 403 for ever.
  for (const char* wrong :
       {"chat.example.com", ",", "https://a,,https://b", "https://a/", "https://a/b", "://a", "https://"}) {
    EXPECT_FALSE(OriginRules::Parse(wrong, kOnLoopback).ok()) << wrong;
  }
}

}  // namespace
}  // namespace bellwether
