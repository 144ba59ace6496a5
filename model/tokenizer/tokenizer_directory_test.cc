#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "model/tokenizer/tokenizer.h"

namespace bellwether {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

namespace fs = std::filesystem;
const fs::path kGoldens = "tests/goldens/tokenizer";

// A folder of its own, removed at the end.
class TokenizerDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::path(testing::TempDir()) / (std::string("tokenizer_directory_") + info->name());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(dir_ / name) << text; }
  void Copy(const std::string& golden, const std::string& name) {
    fs::copy_file(kGoldens / golden / name, dir_ / name);
  }
  std::unique_ptr<Tokenizer> MustLoad() {
    auto tokenizer = LoadTokenizerFromDirectory(dir_.string());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }
  fs::path dir_;
};

TEST_F(TokenizerDirectoryTest, NotFoundWithoutATokenizer) {
  const auto tokenizer = LoadTokenizerFromDirectory(dir_.string());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(tokenizer.status().message(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
}

TEST_F(TokenizerDirectoryTest, EmptyBosAndEosInTheConfigSayNothing) {
  Copy("llama_spm", "tokenizer.model");
  Write("tokenizer_config.json", R"({"bos_token": "", "eos_token": "", "unk_token": ""})");
  const auto tokenizer = MustLoad();
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_THAT(tokenizer->eos_ids(), ElementsAre(2));
  EXPECT_EQ(tokenizer->Encode("a", {})->front(), 1);
}

TEST_F(TokenizerDirectoryTest, ConfigTurnsBosAndEosOnAndOff) {
  Copy("llama_spm", "tokenizer.model");
  Write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  const auto ids = *MustLoad()->Encode("a", {});
  EXPECT_NE(ids.front(), 1);
  EXPECT_EQ(ids.back(), 2);
}

TEST_F(TokenizerDirectoryTest, TokenizerJsonIsPreferred) {
  Copy("llama_spm", "tokenizer.model");
  Copy("bloom", "tokenizer.json");
  Copy("bloom", "tokenizer_config.json");
  const auto tokenizer = MustLoad();
  EXPECT_EQ(tokenizer->vocab_size(), 420);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_NE(tokenizer->Encode("a", {})->front(), 1);  // BLOOM adds none
}

TEST_F(TokenizerDirectoryTest, AllEndTokensOfGenerationConfig) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    Copy("llama3", name);
  const auto tokenizer = MustLoad();
  EXPECT_THAT(tokenizer->eos_ids(), ElementsAre(*tokenizer->FindToken("<|end_of_text|>"),  //
                                                *tokenizer->FindToken("<|eot_id|>")));
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->FindToken("<|begin_of_text|>"));
}

TEST_F(TokenizerDirectoryTest, TokensAddedToASentencepieceModel) {
  Copy("llama_spm", "tokenizer.model");
  Write("added_tokens.json", R"({"<pad>": 640, "<user>": 641})");
  Write("special_tokens_map.json", R"({"pad_token": "<pad>", "eos_token": {"content": "</s>"}})");
  const auto tokenizer = MustLoad();
  EXPECT_EQ(tokenizer->vocab_size(), 642);
  EXPECT_TRUE(tokenizer->IsSpecial(640));
  EXPECT_FALSE(tokenizer->IsSpecial(641));
  EXPECT_EQ(tokenizer->TokenBytes(641), "<user>");
  EXPECT_EQ(tokenizer->Encode("<user>", {.add_special_tokens = false})->front(), 641);
  EXPECT_NE(tokenizer->Encode("<pad>", {.add_special_tokens = false})->front(), 640);
}

// A user's text must not become a control token because a list was not read.
TEST_F(TokenizerDirectoryTest, TokensInListsAreSpecialToo) {
  Copy("llama_spm", "tokenizer.model");
  Write("added_tokens.json", R"({"<a>": 640, "<b>": 641, "<c>": 642, "<d>": 643})");
  Write("special_tokens_map.json", R"({"additional_special_tokens": ["<a>", {"content": "<b>"}, 3]})");
  Write("tokenizer_config.json", R"({"extra_special_tokens": {"image_token": "<c>"}})");
  const auto tokenizer = MustLoad();
  for (const TokenId id : {640, 641, 642}) EXPECT_TRUE(tokenizer->IsSpecial(id)) << id;
  EXPECT_FALSE(tokenizer->IsSpecial(643));
  EXPECT_NE(tokenizer->Encode("<a>", {.add_special_tokens = false})->front(), 640);
}

TEST_F(TokenizerDirectoryTest, ErrorsNameTheFile) {
  Write("tokenizer.json", "{}");
  EXPECT_THAT(LoadTokenizerFromDirectory(dir_.string()).status().message(),
              HasSubstr("tokenizer.json: model"));
  Copy("bloom", "tokenizer_config.json");
  Write("generation_config.json", "{");
  EXPECT_THAT(LoadTokenizerFromDirectory(dir_.string()).status().message(),
              HasSubstr("generation_config.json"));
}

TEST(TokenizerTest, ByteLevelRoundTripsAnyBytes) {
  for (const char* name : {"gpt2", "smollm", "llama3", "bloom"}) {
    const auto tokenizer = LoadTokenizerFromDirectory((kGoldens / name).string());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const std::string& text : {std::string("a\xFF b\xE4\xBD 你\x80"), std::string("\xF0\x9F", 2),
                                    std::string("\0 \0x", 4), std::string("'s\xC3'S \xFE\xFE  \xFF ")}) {
      const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = false});
      ASSERT_TRUE(ids.ok()) << ids.status();
      std::string bytes;
      for (const TokenId id : *ids) bytes += (*tokenizer)->TokenBytes(id);
      EXPECT_EQ(bytes, text) << name;
    }
  }
}

TEST(TokenizerTest, TextBeyondTheLimitIsRefused) {
  const auto tokenizer = LoadTokenizerFromDirectory((kGoldens / "gpt2").string());
  ASSERT_TRUE(tokenizer.ok());
  const std::string text(kMaxTextBytes + 1, 'a');
  EXPECT_EQ((*tokenizer)->Encode(text, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, IdsOutsideTheVocabularyAreNothing) {
  const auto tokenizer = LoadTokenizerFromDirectory((kGoldens / "gpt2").string());
  ASSERT_TRUE(tokenizer.ok());
  for (const TokenId id : {-1, (*tokenizer)->vocab_size(), 2147483647}) {
    EXPECT_EQ((*tokenizer)->TokenBytes(id), "");
    EXPECT_EQ((*tokenizer)->TokenPiece(id), "");
    EXPECT_FALSE((*tokenizer)->IsSpecial(id));
  }
  EXPECT_EQ((*tokenizer)->Decode({-1, 2147483647}, /*skip_special=*/false), "");
}

}  // namespace
}  // namespace bellwether
