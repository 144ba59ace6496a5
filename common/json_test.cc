#include "common/json.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

std::string Rewritten(std::string_view text) {
  const absl::StatusOr<Json> value = ParseJson(text);
  return value.ok() ? WriteJson(*value) : std::string(value.status().message());
}

TEST(JsonTest, WhatIsReadIsWrittenAgain) {
  for (const char* text :
       {"null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808",
        "18446744073709551615", "1.5", "-0.25", "1e+300", "1.0", "\"\"", "\"a\\\"\\\\\\n\\t\\r\\u0001\"",
        "\"\xC3\xA9\xF0\x9F\x90\x91\"", "[]", "[1,[2,[]],{}]", "{}", "{\"b\":1,\"a\":{\"c\":[null,true]}}"}) {
    EXPECT_EQ(Rewritten(text), text);
  }
  EXPECT_EQ(Rewritten(" [ 1 ,\t2 ]\r\n"), "[1,2]");
  EXPECT_EQ(Rewritten("\"\\/\\b\\f\\u00e9\\ud83d\\uDC11\""), "\"/\\u0008\\u000c\xC3\xA9\xF0\x9F\x90\x91\"");
  EXPECT_EQ(Rewritten("100000000000000000000"), "1e+20");  // no integer of 64 bits
  EXPECT_EQ(Rewritten("\xEF\xBB\xBF{}"), "{}");
}

TEST(JsonTest, TheLastOfEqualNamesCounts) {
  EXPECT_EQ(Rewritten(R"({"a":1,"b":2,"a":3,"b":4,"c":5})"), R"({"a":3,"b":4,"c":5})");
}

TEST(JsonTest, WhatIsNotJsonIsRefusedWithItsPlace) {
  for (const char* text : {"",
                           "nul",
                           "tru",
                           "01",
                           "1.",
                           ".5",
                           "1e",
                           "-",
                           "+1",
                           "0x1",
                           "1 2",
                           "[1,]",
                           "[1 2]",
                           "[",
                           "]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{'a':1}",
                           "\"a",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u+123\"",
                           "\"\\ud83d\"",
                           "\"\\udc11\"",
                           "\"\\ud83dx\"",
                           "\"\xFF\"",
                           "\"\xED\xA0\x80\"",
                           "\"\xC3\"",
                           "// 1",
                           "NaNs",
                           "--Infinity",
                           "\xEF\xBB\xBF\xEF\xBB\xBF{}"}) {
    EXPECT_THAT(Rewritten(text), HasSubstr("not valid JSON at line 1, column")) << text;
  }
  EXPECT_THAT(Rewritten("{\n  \"a\": 1,\n  b\n}"), HasSubstr("line 3, column 3: expected a name"));
  EXPECT_THAT(Rewritten("[\n1"), HasSubstr("line 2, column 2: expected ',' or ']' (is the file cut short?)"));
}

class Ignored : public JsonEvents {
  absl::Status Scalar(Json) override { return absl::OkStatus(); }
  absl::Status BeginObject() override { return absl::OkStatus(); }
  absl::Status Key(std::string) override { return absl::OkStatus(); }
  absl::Status EndObject() override { return absl::OkStatus(); }
  absl::Status BeginArray() override { return absl::OkStatus(); }
  absl::Status EndArray() override { return absl::OkStatus(); }
};

TEST(JsonTest, NestingAndNumberOfValuesAreBounded) {
  const auto nested = [](int levels) { return std::string(levels, '[') + "1" + std::string(levels, ']'); };
  EXPECT_EQ(Rewritten(nested(kJsonDepthMax)), nested(kJsonDepthMax));
  EXPECT_THAT(Rewritten(nested(kJsonDepthMax + 1)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(Rewritten(std::string(1'000'000, '[')), HasSubstr("nested deeper"));
  std::string many = "[0";
  many.reserve(2 * kJsonValuesMax + 3);
  for (size_t i = 0; i < kJsonValuesMax; ++i) many += ",0";
  Ignored events;
  EXPECT_THAT(ReadJson(many + "]", events).message(), HasSubstr("more than 16777216 values"));
}

// Python writes them and reads them, so files have them.
TEST(JsonTest, NumbersThatJsonDoesNotKnowAreReadAndNeverWritten) {
  const absl::StatusOr<Json> value = ParseJson("[NaN, Infinity, -Infinity, 1e999]");
  ASSERT_TRUE(value.ok()) << value.status();
  for (const Json& number : *value) {
    EXPECT_TRUE(number.is_not_finite());
    EXPECT_FALSE(number.is_number());
    EXPECT_FALSE(number.is_null());
  }
  EXPECT_TRUE(std::isnan((*value)[0].get<double>()));
  EXPECT_EQ((*value)[2].get<double>(), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(WriteJson(*value), "[null,null,null,null]");
}

TEST(JsonTest, AskedForWhatItIsNotAValueIsEmpty) {
  const Json text("a"), number(3), list = Json::array({1, 2});
  EXPECT_EQ(text.get<int>(), 0);
  EXPECT_FALSE(text.get<bool>());
  EXPECT_EQ(number.text(), "");
  EXPECT_TRUE(number["a"].is_null());
  EXPECT_TRUE(list["a"].is_null());
  EXPECT_TRUE(list[2].is_null());
  EXPECT_TRUE(text[0].is_null());
  EXPECT_EQ(text.find("a"), nullptr);
  EXPECT_TRUE(text.empty());
  EXPECT_EQ(list.size(), 2u);
}

TEST(JsonTest, NumbersAreEqualByValue) {
  EXPECT_EQ(Json(1), Json(1.0));
  EXPECT_EQ(*ParseJson("10000"), *ParseJson("1e4"));
  EXPECT_NE(Json(1), Json(true));
  EXPECT_NE(Json(0), Json());
  EXPECT_NE(Json(uint64_t{1} << 63), Json(int64_t{1} << 62));
  EXPECT_EQ(Json("a"), "a");
}

TEST(JsonTest, AreBuiltMemberByMember) {
  Json json = Json::object({{"one", 1}, {"list", Json::array()}, {"none", nullptr}});
  json["one"] = 1.5f;
  json["more"]["deep"] = std::vector<int>{1, 2};
  json["list"].push_back(uint64_t{18446744073709551615u});
  EXPECT_EQ(WriteJson(json),
            R"({"one":1.5,"list":[18446744073709551615],"none":null,"more":{"deep":[1,2]}})");
  EXPECT_EQ(WriteJson(Json::object({{"a", Json::array({1})}, {"b", Json::object()}}), 2),
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
}

// A file's name is bytes, and a text of JSON is UTF-8.
TEST(JsonTest, BytesThatAreNotUtf8AreShownEscaped) {
  const std::string text = WriteJson(Json::object({{"path\xFF", "m\xE9.gguf"}}));
  EXPECT_EQ(text, R"({"path\\xff":"m\\xe9.gguf"})");
  EXPECT_TRUE(ParseJson(text).ok());
}

}  // namespace
}  // namespace bellwether
