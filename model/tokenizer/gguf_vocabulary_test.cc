// The vocabularies of the goldens, put as a GGUF file would have them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "model/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json ReadJson(const std::string& path) {
  std::ifstream file("tests/goldens/tokenizer/" + path);
  return json::parse(file, nullptr, /*allow_exceptions=*/false);
}

GgufVocabulary FromTokenizerJson(const std::string& name, const std::string& pre) {
  const json file = ReadJson(name + "/tokenizer.json");
  GgufVocabulary v{.model = "gpt2", .pre = pre};
  const auto set = [&](size_t id, const std::string& piece, int32_t type) {
    if (id >= v.tokens.size()) {
      v.tokens.resize(id + 1);
      v.token_types.resize(id + 1, 1);
    }
    v.tokens[id] = piece;
    v.token_types[id] = type;
  };
  for (const auto& [piece, id] : file["model"]["vocab"].items()) set(id, piece, 1);
  for (const json& token : file["added_tokens"]) set(token["id"], token["content"], token["special"] ? 3 : 4);
  for (const json& merge : file["model"]["merges"]) {
    v.merges.push_back(merge.is_string() ? merge.get<std::string>()
                                         : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return v;
}

class GgufVocabularyTest : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GgufVocabularyTest, SameAsTokenizerJson) {
  const auto& [name, pre] = GetParam();
  GgufVocabulary vocabulary = FromTokenizerJson(name, pre);
  vocabulary.add_bos = false;
  const auto tokenizer = MakeTokenizerFromGguf(vocabulary);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const json golden = ReadJson(std::string(name) + "/cases.json");
  for (const json& one : golden["cases"]) {
    const std::string text = one["text"];
    SCOPED_TRACE(text);
    const std::vector<TokenId> plain = one["plain"];
    EXPECT_EQ(*(*tokenizer)->Encode(text, {}), plain);
    const json& special = one.contains("special") ? one["special"] : one["plain"];
    EXPECT_EQ(*(*tokenizer)->Encode(text, {.parse_special_tokens = true}),
              special.get<std::vector<TokenId>>());
    EXPECT_EQ((*tokenizer)->Decode(plain, true), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufVocabularyTest,
                         testing::Values(std::pair("gpt2", "gpt-2"), std::pair("smollm", "smollm"),
                                         std::pair("llama3", "llama-bpe"), std::pair("bloom", "bloom")),
                         [](const auto& info) { return std::string(info.param.first); });

TEST(GgufVocabularyErrorTest, LlamaBpeAddsBosUnlessToldNot) {
  GgufVocabulary v = FromTokenizerJson("llama3", "llama-bpe");
  v.bos_id = 0;
  EXPECT_EQ((*MakeTokenizerFromGguf(v))->Encode("x", {})->front(), 0);
  v.add_bos = false;
  EXPECT_NE((*MakeTokenizerFromGguf(v))->Encode("x", {})->front(), 0);
  v.add_eos = true;
  v.eos_id = 1;
  v.eot_id = 2;
  EXPECT_EQ((*MakeTokenizerFromGguf(v))->Encode("x", {})->back(), 1);
  EXPECT_THAT((*MakeTokenizerFromGguf(v))->eos_ids(), ElementsAre(1, 2));
}

// Converters wrote padding ids one past the end and merges of tokens that were cut off.
TEST(GgufVocabularyErrorTest, WhatNobodyNeedsIsPassedOver) {
  GgufVocabulary v = FromTokenizerJson("gpt2", "gpt-2");
  const auto tokenizer = MakeTokenizerFromGguf(v);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  v.padding_id = v.unknown_id = static_cast<int32_t>(v.tokens.size());
  v.merges.insert(v.merges.begin(), "no such");
  v.merges.insert(v.merges.begin(), "t h" + std::string(50, 'x'));
  const auto lenient = MakeTokenizerFromGguf(v);
  ASSERT_TRUE(lenient.ok()) << lenient.status();
  EXPECT_EQ(*(*lenient)->Encode("the same thing", {}), *(*tokenizer)->Encode("the same thing", {}));
}

TEST(GgufVocabularyErrorTest, RefusedByName) {
  const auto error_of = [](GgufVocabulary v) {
    return MakeTokenizerFromGguf(std::move(v)).status().ToString();
  };
  EXPECT_THAT(error_of(FromTokenizerJson("gpt2", "chatglm-bpe")),
              HasSubstr("\"chatglm-bpe\" is not supported"));
  GgufVocabulary v = FromTokenizerJson("gpt2", "gpt-2");
  v.model = "bert";
  EXPECT_THAT(error_of(v), HasSubstr("\"bert\" is not supported"));
  v.model = "llama";
  EXPECT_THAT(error_of(v), HasSubstr("without scores"));
  v.scores = {1.0f};
  EXPECT_THAT(error_of(v), HasSubstr("1 scores for"));
  v = FromTokenizerJson("gpt2", "");
  EXPECT_TRUE(MakeTokenizerFromGguf(v).ok());  // files older than the key
  v.bos_id = 1000000;
  EXPECT_THAT(error_of(v), HasSubstr("special token id 1000000"));
  v.bos_id = -1;
  EXPECT_THAT(error_of(v), HasSubstr("special token id -1"));
  v.bos_id.reset();
  v.merges = {""};
  EXPECT_THAT(error_of(v), HasSubstr("no pair"));
  EXPECT_THAT(error_of({.model = "gpt2"}), HasSubstr("no tokens"));
}

}  // namespace
}  // namespace bellwether
