#include "model/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json Minimal() {
  return json::parse(R"({
    "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}})");
}

std::string ErrorOf(const json& file) {
  const auto parts = ParseTokenizerJson(file.dump());
  return parts.ok() ? "no error" : parts.status().ToString();
}
std::string ErrorWith(const char* pointer, const json& value) {
  json file = Minimal();
  file[json::json_pointer(pointer)] = value;
  return ErrorOf(file);
}

std::vector<TokenId> MustEncode(const json& file, const std::string& text, EncodeOptions options = {}) {
  auto parts = ParseTokenizerJson(file.dump());
  EXPECT_TRUE(parts.ok()) << parts.status();
  const auto ids = ComposeTokenizer(*std::move(parts))->Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

TEST(TokenizerJsonTest, MergesByRank) {
  EXPECT_THAT(MustEncode(Minimal(), "abba ab"), ElementsAre(2, 1, 0, 3, 2));
}

TEST(TokenizerJsonTest, MergesAsStringsAndAsPairsAreTheSame) {
  json pairs = Minimal();
  pairs["model"]["merges"] = json::parse(R"([["a", "b"]])");
  EXPECT_EQ(MustEncode(pairs, "abba ab"), MustEncode(Minimal(), "abba ab"));
}

TEST(TokenizerJsonTest, UnknownBytesVanishWithoutAnUnknownToken) {
  EXPECT_THAT(MustEncode(Minimal(), "axb"), ElementsAre(2));  // as the tokenizers library has it
  json file = Minimal();
  file["model"]["unk_token"] = "Ġ";
  EXPECT_THAT(MustEncode(file, "axyb"), ElementsAre(0, 3, 3, 1));
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(MustEncode(file, "axyb"), ElementsAre(0, 3, 1));
}

TEST(TokenizerJsonTest, SpecialTokensStandOnlyWithinOnePieceThatAllowsThem) {
  auto parts = ParseTokenizerJson(Minimal().dump());
  ASSERT_TRUE(parts.ok());
  const auto tokenizer = ComposeTokenizer(*std::move(parts));
  const auto encode = [&](std::vector<TextPiece> pieces) {
    return *tokenizer->EncodePieces(pieces, /*add_special_tokens=*/false, {});
  };
  EXPECT_THAT(encode({{"a<s>b", true}}), ElementsAre(0, 4, 1));
  EXPECT_THAT(encode({{"a", true}, {"<s>", false}, {"b", true}}), ElementsAre(0, 1));
  EXPECT_THAT(encode({{"a<", true}, {"s>b", true}}), ElementsAre(0, 1));
  EXPECT_THAT(encode({{"a", false}, {"<s>", true}, {"", true}, {"b", false}}), ElementsAre(0, 4, 1));
  EXPECT_THAT(encode({{"a", false}, {"b", true}}), ElementsAre(2));  // merges cross the border
  EXPECT_THAT(encode({}), ElementsAre());
}

// Marks of a chat template that the vocabulary calls plain.
TEST(TokenizerJsonTest, MarksAreSpecialWhateverTheVocabularyCallsThem) {
  json file = Minimal();
  file["added_tokens"][0]["special"] = false;
  auto parts = ParseTokenizerJson(file.dump());
  ASSERT_TRUE(parts.ok());
  const auto tokenizer = ComposeTokenizer(*std::move(parts));
  const auto encode = [&](std::vector<TextPiece> pieces) {
    return *tokenizer->EncodePieces(pieces, /*add_special_tokens=*/false, {});
  };
  const TokenId added = 4, joined = 2;  // "<s>" and "ab"
  EXPECT_THAT(encode({{"a<s>b", false}}), ElementsAre(0, 4, 1));
  EXPECT_THAT(encode({{"a<s>b", false, {&added, 1}}}), ElementsAre(0, 1));
  EXPECT_THAT(encode({{"a<s>b", true, {&added, 1}}}), ElementsAre(0, 4, 1));
  EXPECT_THAT(encode({{"<s>", true, {&added, 1}}, {"<s>a<s>", false}}), ElementsAre(4, 0));
  // A piece that plain text becomes by merging.
  EXPECT_THAT(encode({{"ab", false, {&joined, 1}}}), ElementsAre(0, 1));
  EXPECT_THAT(encode({{"ab", true, {&joined, 1}}, {"ab", false}}), ElementsAre(2, 0, 1));
}

// Tokens 5 on, plain ones, with flags of all kinds. What is expected of them is what tokenizers 0.21.4 gives.
json WithPlainTokens() {
  json file = Minimal();
  const auto add = [&](const char* content, json flags) {
    flags.update({{"id", file["added_tokens"].size() + 4}, {"content", content}, {"special", false}});
    file["added_tokens"].push_back(std::move(flags));
  };
  add("<r>", {{"rstrip", true}});
  add("\n", json::object());
  add("  ", json::object());
  add("<l>", {{"lstrip", true}});
  add("word", {{"single_word", true}});
  add("<b>", {{"lstrip", true}, {"rstrip", true}});
  add(" x", json::object());
  return file;
}

// Whitespace went with the token before it alone, though it was a token of its own.
TEST(TokenizerJsonTest, WhitespaceThatATokenTakesMayBeAnother) {
  const json file = WithPlainTokens();
  EXPECT_THAT(MustEncode(file, "a<r>\nb"), ElementsAre(0, 5, 6, 1));
  EXPECT_THAT(MustEncode(file, "<r>\n"), ElementsAre(5, 6));
  EXPECT_THAT(MustEncode(file, "<r> \n b"), ElementsAre(5, 6, 3, 1));
  EXPECT_THAT(MustEncode(file, "<r>\n\n b"), ElementsAre(5, 6, 6, 3, 1));
  EXPECT_THAT(MustEncode(file, "a<r>   b"), ElementsAre(0, 5, 7, 3, 1));
  EXPECT_THAT(MustEncode(file, "<r>   <l>"), ElementsAre(5, 7, 8));
  EXPECT_THAT(MustEncode(file, "<r> <l>a"), ElementsAre(5, 8, 0));
  EXPECT_THAT(MustEncode(file, "a   <l>"), ElementsAre(0, 7, 8));
  EXPECT_THAT(MustEncode(file, "<b>\n<b>"), ElementsAre(10, 6, 10));
  EXPECT_THAT(MustEncode(file, "a <b> a"), ElementsAre(0, 10, 0));
  EXPECT_THAT(MustEncode(file, "<r> x"), ElementsAre(5, 11));
  EXPECT_THAT(MustEncode(file, "<r>    x"), ElementsAre(5, 7, 7));
  auto parts = ParseTokenizerJson(file.dump());
  ASSERT_TRUE(parts.ok());
  const TokenId mark = 8;  // "<l>"
  const TextPiece piece{"<r> \n<l>", true, {&mark, 1}};
  EXPECT_THAT(*ComposeTokenizer(*std::move(parts))->EncodePieces({&piece, 1}, false, {}),
              ElementsAre(5, 6, 8));
}

// All that is not ASCII counted as a letter: Chinese punctuation and emoji, too.
TEST(TokenizerJsonTest, ASingleWordHasNoCharacterOfAWordBesideIt) {
  const json file = WithPlainTokens();
  for (const char* text : {"word", "\u3002word", "word\u3002", "\U0001F642word\U0001F642", "word\u00BD",
                           "word\u00B2", "-word-", "word\xE4", "\xA0word", "word\uFFFD"}) {
    EXPECT_THAT(MustEncode(file, text), ElementsAre(9)) << text;
  }
  EXPECT_THAT(MustEncode(file, "word word"), ElementsAre(9, 3, 9));
  for (const char* text : {"word\u00E9", "\u4F60word", "word\u4F60", "word\u203F", "word\u24D0", "word\u2167",
                           "word\u0663", "word\u200D", "\u0301word", "_word", "word1"}) {
    EXPECT_THAT(MustEncode(file, text), ElementsAre()) << text;
  }
}

TEST(TokenizerJsonTest, LoadsWhatTheLibraryLoads) {
  json file = Minimal();
  file["added_tokens"].push_back({{"id", 5}, {"content", ""}, {"special", true}});
  file["model"]["merges"].insert(file["model"]["merges"].begin(), "#version: 0.2 - Trained by tokenizers");
  EXPECT_THAT(MustEncode(file, "ab"), MustEncode(Minimal(), "ab"));
}

TEST(TokenizerJsonTest, ComponentsThatAreNotSupportedAreNamed) {
  EXPECT_THAT(ErrorWith("/model/type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_THAT(ErrorWith("/normalizer", {{"type", "Lowercase"}}), HasSubstr("normalizer: type Lowercase"));
  EXPECT_THAT(ErrorWith("/pre_tokenizer", {{"type", "BertPreTokenizer"}}),
              HasSubstr("type BertPreTokenizer"));
  EXPECT_THAT(ErrorWith("/decoder", {{"type", "WordPiece"}}), HasSubstr("decoder: type WordPiece"));
  EXPECT_THAT(ErrorWith("/decoder", nullptr), HasSubstr("decoder: none"));
  EXPECT_THAT(ErrorWith("/post_processor", {{"type", "BertProcessing"}}), HasSubstr("type BertProcessing"));
  EXPECT_THAT(ErrorWith("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(ErrorWith("/model/continuing_subword_prefix", "##"), HasSubstr("continuing_subword_prefix"));
  EXPECT_THAT(ErrorWith("/pre_tokenizer/type", "Metaspace"),
              HasSubstr("one is ByteLevel and the other is not"));
  EXPECT_THAT(ErrorWith("/pre_tokenizer", json::parse(R"({"type": "Split", "behavior": "MergedWithNext",
                                                          "pattern": {"Regex": "a"}})")),
              HasSubstr("MergedWithNext"));
}

TEST(TokenizerJsonTest, DamageIsNamed) {
  EXPECT_THAT(ErrorWith("/model", nullptr), HasSubstr("model: missing"));
  EXPECT_THAT(ErrorWith("/model/vocab", json::object()), HasSubstr("model.vocab"));
  EXPECT_THAT(ErrorWith("/model/vocab/b", 0), HasSubstr("same id 0"));
  EXPECT_THAT(ErrorWith("/model/vocab/b", -1), HasSubstr("model.vocab"));
  EXPECT_THAT(ErrorWith("/model/vocab/b", 18446744073709551615u), HasSubstr("model.vocab"));
  EXPECT_THAT(ErrorWith("/model/vocab/b", "x"), HasSubstr("model.vocab"));
  EXPECT_THAT(ErrorWith("/model/merges", json::parse(R"(["ab"])")), HasSubstr("entry 0"));
  EXPECT_THAT(ErrorWith("/model/merges", json::parse(R"(["b a"])")), HasSubstr("not in the vocabulary"));
  EXPECT_THAT(ErrorWith("/model/merges", json::parse(R"([[1, 2]])")), HasSubstr("entry 0"));
  EXPECT_THAT(ErrorWith("/added_tokens/0/content", 3), HasSubstr("added_tokens"));
  EXPECT_THAT(ErrorWith("/pre_tokenizer", json::parse(R"({"type": "Split", "behavior": "Isolated",
                                                          "pattern": {"Regex": "a("}})")),
              HasSubstr("a("));
  EXPECT_THAT(ErrorOf(json::array()), HasSubstr("not a JSON object"));
  EXPECT_FALSE(ParseTokenizerJson("{").ok());
  EXPECT_FALSE(ParseTokenizerJson("").ok());
}

TEST(TokenizerJsonTest, DeepNestingIsRefused) {
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  EXPECT_THAT(ParseTokenizerJson(R"({"model": {"type": )" + deep + "}}").status().ToString(),
              HasSubstr("nested deeper than 64"));
  json sequence = {{"type", "NFC"}};
  for (int i = 0; i < 12; ++i) sequence = {{"type", "Sequence"}, {"normalizers", json::array({sequence})}};
  EXPECT_THAT(ErrorWith("/normalizer", sequence), HasSubstr("nested too deep"));
}

TEST(TokenizerJsonTest, TemplateOfBothEnds) {
  json file = Minimal();
  file["post_processor"] = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
    "special_tokens": {"<s>": {"ids": [4]}, "</s>": {"ids": [4, 0]}}})");
  EXPECT_THAT(MustEncode(file, "b"), ElementsAre(4, 1, 4, 0));
  EXPECT_THAT(MustEncode(file, "b", {.add_special_tokens = false}), ElementsAre(1));
  file["post_processor"]["special_tokens"]["<s>"]["ids"] = {77};
  EXPECT_THAT(ErrorOf(file), HasSubstr("not in the vocabulary"));
}

}  // namespace
}  // namespace bellwether
