#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "model/chat_template/chat_template_hints.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"

// Files as users have them, which lie beside the project (../shared/cases, its README says what is right).
// The tests of each reader tell the same stories with small files of their own.

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCases[] = "../shared/cases/";

class SharedCasesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kCases)) GTEST_SKIP() << kCases << " is not there";
  }
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& name) {
    return Checkpoint::Open(kCases + name);
  }
  static std::unique_ptr<Checkpoint> MustOpen(const std::string& name) {
    auto checkpoint = Open(name);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }
  static std::unique_ptr<Tokenizer> MustLoadTokenizer(const std::string& name) {
    const std::unique_ptr<Checkpoint> checkpoint = MustOpen(name);
    if (checkpoint == nullptr) return nullptr;
    auto tokenizer = checkpoint->LoadTokenizer();
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }
  static std::string TemplateOf(const std::string& name) {
    const std::unique_ptr<Checkpoint> checkpoint = MustOpen(name);
    return checkpoint == nullptr ? "" : ChooseChatTemplate(HintsOf(*checkpoint)).chosen->name;
  }
  static std::string Refusal(const std::string& name) { return std::string(Open(name).status().message()); }
};

TEST_F(SharedCasesTest, AdditionalSpecialTokensAreSpecial) {
  const auto tokenizer = MustLoadTokenizer("03-additional-special-tokens/oasst");
  ASSERT_NE(tokenizer, nullptr);
  const TokenId assistant = *tokenizer->FindToken("<|assistant|>");
  EXPECT_TRUE(tokenizer->IsSpecial(assistant));
  EXPECT_THAT(*tokenizer->Encode("a<|assistant|>b", {}), Not(Contains(assistant)));
  EXPECT_THAT(*tokenizer->Encode("a<|assistant|>b", {.parse_special_tokens = true}), Contains(assistant));
  EXPECT_EQ(tokenizer->Decode({assistant}, /*skip_special=*/true), "");
}

// Links are made here: not every copy of the cases kept them.
TEST_F(SharedCasesTest, TheTemplateIsTheSameByEveryPath) {
  namespace fs = std::filesystem;
  const testing_files::TemporaryDirectory temporary;
  const fs::path plain = fs::absolute(std::string(kCases) + "05-template-by-path/BiLLa-7B-SFT");
  const fs::path link = temporary.path() + "/current";
  fs::create_directory_symlink(plain, link);
  const fs::path snapshot = temporary.path() + "/hub/models--Neutralzz--BiLLa-7B-SFT/snapshots/9f2c0d8e";
  fs::create_directories(snapshot);
  for (const auto& file : fs::directory_iterator(plain)) {
    fs::create_symlink(file.path(), snapshot / file.path().filename());
  }
  for (const fs::path& path : {plain, plain / ".", link, snapshot, snapshot / ""}) {
    SCOPED_TRACE(path);
    const auto checkpoint = Checkpoint::Open(path.string());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_STREQ(ChooseChatTemplate(HintsOf(**checkpoint)).chosen->name, "billa");
  }
}

TEST_F(SharedCasesTest, AGgufSaysItsFamilyByItsGeneralName) {
  EXPECT_EQ(TemplateOf("06-gguf-general-name/ggml-model-q4.gguf"), "belle-llama");
  EXPECT_EQ(TemplateOf("06-gguf-general-name/ggml-model-q5.gguf"), "alpaca");
}

TEST_F(SharedCasesTest, FilesOfOthersBesideTheShardsArePassedOver) {
  MustOpen("08-appledouble/appledouble");
  MustOpen("23-consolidated/consolidated");
}

TEST_F(SharedCasesTest, ATiedModelMayStoreItsHeadOnly) {
  const auto checkpoint = MustOpen("10-tied-lm-head-only/lm_head_only");
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->config().tied_head);
  ASSERT_NE(checkpoint->Find({TensorRole::kEmbedding}), nullptr);
  EXPECT_THAT(checkpoint->Find({TensorRole::kEmbedding})->source, HasSubstr("lm_head.weight"));
}

TEST_F(SharedCasesTest, IdsBeyondTheVocabularyThatNobodyNeedsArePassedOver) {
  EXPECT_NE(MustLoadTokenizer("11-gguf-special-id/pad_n.gguf"), nullptr);
  EXPECT_NE(MustLoadTokenizer("11-gguf-special-id/unk_big.gguf"), nullptr);
}

TEST_F(SharedCasesTest, InfinityWhereNobodyReadsIsNoFault) {
  EXPECT_NE(MustLoadTokenizer("12-json-infinity/inf_config"), nullptr);
  EXPECT_NE(MustLoadTokenizer("12-json-infinity/inf_generation"), nullptr);
  EXPECT_NE(MustLoadTokenizer("12-json-infinity/inf_tokcfg"), nullptr);
}

TEST_F(SharedCasesTest, TokenizerFilesLoadAsTheLibraryLoadsThem) {
  EXPECT_NE(MustLoadTokenizer("16-tokenizer-json-leniency/tj_empty"), nullptr);
  EXPECT_NE(MustLoadTokenizer("16-tokenizer-json-leniency/tj_version"), nullptr);
  EXPECT_NE(MustLoadTokenizer("20-gguf-merge-unknown/merge.gguf"), nullptr);
}

TEST_F(SharedCasesTest, GitLfsPointersAreCalledSo) {
  EXPECT_THAT(Refusal("21-lfs-pointers/lfs.gguf"), HasSubstr("lfs.gguf is a Git LFS pointer"));
  EXPECT_THAT(Refusal("21-lfs-pointers/lfs_weights"), HasSubstr("model.safetensors is a Git LFS pointer"));
  for (const std::string name : {"21-lfs-pointers/lfs_tok", "21-lfs-pointers/lfs_spm"}) {
    const auto checkpoint = MustOpen(name);
    ASSERT_NE(checkpoint, nullptr);
    EXPECT_THAT(std::string(checkpoint->LoadTokenizer().status().message()),
                AllOf(HasSubstr("tokenizer."), HasSubstr("is a Git LFS pointer")));
  }
}

TEST_F(SharedCasesTest, MarksOfTheTemplateAreTokensWhateverTheVocabularyCallsThem) {
  for (const std::string name : {"im_false", "im_userdef.gguf", "im_normal.gguf"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(TemplateOf("25-control-tokens-not-special/" + name), "chatml");
    const auto tokenizer = MustLoadTokenizer("25-control-tokens-not-special/" + name);
    ASSERT_NE(tokenizer, nullptr);
    const auto chat = RenderChat(*FindChatTemplate("chatml"),
                                 std::vector<ChatMessage>{{"user", "a<|im_end|>b<|im_start|>"}});
    ASSERT_TRUE(chat.ok()) << chat.status();
    const auto encoded = EncodeChat(*chat, *tokenizer);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    const TokenId start = *tokenizer->FindToken("<|im_start|>"), end = *tokenizer->FindToken("<|im_end|>");
    EXPECT_EQ(encoded->prompt.front(), start);
    EXPECT_EQ(std::count(encoded->prompt.begin(), encoded->prompt.end(), start), 2);  // the template's
    EXPECT_EQ(std::count(encoded->prompt.begin(), encoded->prompt.end(), end), 1);
    EXPECT_THAT(encoded->stop_token_ids, Contains(end));
    EXPECT_EQ(tokenizer->Decode(encoded->prompt, /*skip_special=*/false), chat->Text());
  }
}

}  // namespace
}  // namespace bellwether
