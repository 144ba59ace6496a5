// The tokenizers of tests/goldens/tokenizer against what the libraries of real checkpoints made of the same
// texts.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "model/tokenizer/incremental_detokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using nlohmann::json;

constexpr const char* kGoldens = "tests/goldens/tokenizer/";

json ReadJson(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
}

std::string TextOf(const json& golden) {
  if (golden.contains("text")) return golden["text"];
  const std::string hex = golden["bytes"];
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::vector<TokenId> MustEncode(const Tokenizer& tokenizer, const std::string& text, EncodeOptions options) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<TokenId>();
}

std::string DecodeOneByOne(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  IncrementalDetokenizer detokenizer(&tokenizer, {.at_text_start = true});
  std::string text;
  for (const TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

// As many tokens as are allowed are given, one fewer is an error, and what is said of a text's bytes alone is
// no more than the truth.
void ExpectLimitsHold(const Tokenizer& tokenizer, const std::string& text,
                      const std::vector<TokenId>& plain) {
  EXPECT_LE(tokenizer.FewestTokens(text), plain.size());
  const auto encode = [&](size_t tokens_max) {
    return tokenizer.Encode(text, {.add_special_tokens = false}, {.tokens_max = tokens_max});
  };
  const auto exact = encode(plain.size());
  EXPECT_TRUE(exact.ok() && *exact == plain) << exact.status();
  if (plain.empty()) return;
  EXPECT_TRUE(absl::IsOutOfRange(encode(plain.size() - 1).status()));
}

class GoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, SameAsTheLibrary) {
  const std::string dir = std::string(kGoldens) + GetParam();
  const auto tokenizer = LoadTokenizerFromDirectory(dir);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const json golden = ReadJson(dir + "/cases.json");
  ASSERT_TRUE(golden.is_object());
  const std::vector<TokenId> prefix = golden["framed_prefix"], suffix = golden["framed_suffix"];
  for (const json& one : golden["cases"]) {
    const std::string text = TextOf(one);
    SCOPED_TRACE(one.dump());
    const std::vector<TokenId> plain = one["plain"];
    EXPECT_EQ(MustEncode(**tokenizer, text, {.add_special_tokens = false}), plain);
    ExpectLimitsHold(**tokenizer, text, plain);
    std::vector<TokenId> framed = prefix;
    framed.insert(framed.end(), plain.begin(), plain.end());
    framed.insert(framed.end(), suffix.begin(), suffix.end());
    EXPECT_EQ(MustEncode(**tokenizer, text, {.add_special_tokens = true}), framed);
    if (one.contains("special")) {
      EXPECT_EQ(MustEncode(**tokenizer, text, {.add_special_tokens = false, .parse_special_tokens = true}),
                one["special"].get<std::vector<TokenId>>());
    }
    if (!one.contains("text") || (one.contains("decoded") && one["decoded"].is_null())) continue;
    const std::string decoded = one.contains("decoded") ? one["decoded"].get<std::string>() : text;
    EXPECT_EQ((*tokenizer)->Decode(plain, /*skip_special=*/true), decoded);
    EXPECT_EQ(DecodeOneByOne(**tokenizer, plain), decoded);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "bloom", "llama_spm",
                                         "llama_spm_extended", "spm_rules", "llama_fast",
                                         "llama_fast_metaspace"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace bellwether
