// The real LLaMA vocabulary, where it lies beside the project: against llama.cpp's 47 encodings and known
// sentences.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "model/tokenizer/composed_tokenizer.h"
#include "model/tokenizer/scored_bpe.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {
namespace {

constexpr const char* kModel = "../shared/data/llama_tokenizer.model";
constexpr const char* kTexts = "../shared/data/ggml-vocab-llama-spm.gguf.inp";
constexpr const char* kIds = "../shared/data/ggml-vocab-llama-spm.gguf.out";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

SentencepieceModel MustParse() {
  auto model = ParseSentencepieceModel(ReadFile(kModel));
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : SentencepieceModel();
}

GgufVocabulary AsGguf(const SentencepieceModel& model) {
  GgufVocabulary vocabulary{.model = "llama"};
  for (const SentencepieceModel::Piece& piece : model.pieces) {
    vocabulary.tokens.push_back(piece.text);
    vocabulary.scores.push_back(piece.score);
    vocabulary.token_types.push_back(static_cast<int32_t>(piece.type));
  }
  return vocabulary;
}

std::vector<std::string> SplitTexts(const std::string& all) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  size_t start = 0;
  for (size_t at; (at = all.find(separator, start)) != std::string::npos; start = at + separator.size()) {
    texts.push_back(all.substr(start, at - start));
  }
  return texts;
}

class LlamaVocabularyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << kModel << " is not there";
    auto tokenizer = MakeTokenizerFromGguf(AsGguf(MustParse()));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  std::vector<TokenId> Encode(const std::string& text, bool bos) {
    const auto ids = tokenizer_->Encode(text, {.add_special_tokens = bos});
    EXPECT_TRUE(ids.ok()) << ids.status();
    return *ids;
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(LlamaVocabularyTest, SameAsLlamaCpp) {
  if (!std::filesystem::exists(kTexts)) GTEST_SKIP() << kTexts << " is not there";
  const std::vector<std::string> texts = SplitTexts(ReadFile(kTexts));
  std::stringstream lines(ReadFile(kIds));
  ASSERT_GE(texts.size(), 46u);
  size_t lines_read = 0;
  for (const std::string& text : texts) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line));
    ++lines_read;
    std::stringstream numbers(line);
    std::vector<TokenId> expected;
    for (TokenId id; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(Encode(text, /*bos=*/false), expected) << text;
    EXPECT_EQ(tokenizer_->Decode(expected, /*skip_special=*/true), text);
  }
  EXPECT_EQ(lines_read, texts.size());
}

TEST_F(LlamaVocabularyTest, KnownSentences) {
  EXPECT_EQ(Encode("你好，有什么可以帮助你的吗？", /*bos=*/true),
            (std::vector<TokenId>{1,     29871, 30919, 31076, 30214, 30417, 231,   190, 131, 31882, 30682,
                                  30651, 232,   187,   177,   31931, 30919, 30210, 232, 147, 154,   30882}));
  EXPECT_EQ(Encode("Human: hi\nAssistant: ", /*bos=*/true),
            (std::vector<TokenId>{1, 12968, 29901, 7251, 13, 7900, 22137, 29901, 29871}));
  EXPECT_EQ(tokenizer_->bos_id(), 1);
  EXPECT_EQ(tokenizer_->eos_ids(), std::vector<TokenId>{2});
  EXPECT_EQ(tokenizer_->vocab_size(), 32000);
}

TEST_F(LlamaVocabularyTest, FileAndGgufAgree) {
  auto parts = MakeScoredBpe(MustParse());
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->bos_id, 1);
  const std::unique_ptr<Tokenizer> from_file = ComposeTokenizer(*std::move(parts));
  for (const char* text : {"a  b\n\n中文🙂 x", "<s> </s> <0x41>", "\xFF broken \xE4\xBD", "   "}) {
    const auto ids = from_file->Encode(text, {.add_special_tokens = false});
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(*ids, Encode(text, /*bos=*/false));
  }
}

TEST_F(LlamaVocabularyTest, LongTextsTakeNoQuadraticTime) {
  for (const std::string& unit :
       {std::string("a"), std::string(" "), std::string("你好 world, "), std::string("\xFF")}) {
    std::string text;
    while (text.size() + unit.size() <= (size_t{1} << 20)) text += unit;
    EXPECT_FALSE(Encode(text, /*bos=*/false).empty());
  }
}

}  // namespace
}  // namespace bellwether
