#include "model/tokenizer/write_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/checkpoint/testing_files.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer.h"

// Vocabularies as GGUF has them, written as files of a directory, read back and compared with themselves.

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;

const std::string kGoldens = "tests/goldens/tokenizer/";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

Json ReadGolden(const std::string& path) {
  const auto json = ParseJson(ReadFile(kGoldens + path));
  EXPECT_TRUE(json.ok()) << path << ": " << json.status();
  return json.ok() ? *json : Json();
}

GgufVocabulary OfTokenizerJson(const std::string& name, const std::string& pre) {
  const Json file = ReadGolden(name + "/tokenizer.json");
  GgufVocabulary v{.model = "gpt2", .pre = pre};
  const auto set = [&](size_t id, const std::string& piece, int32_t type) {
    if (id >= v.tokens.size()) {
      v.tokens.resize(id + 1);
      v.token_types.resize(id + 1, 1);
    }
    v.tokens[id] = piece;
    v.token_types[id] = type;
  };
  for (const auto& [piece, id] : file["model"]["vocab"].items()) set(id.get<size_t>(), piece, 1);
  for (const Json& token : file["added_tokens"])
    set(token["id"].get<size_t>(), token["content"].text(), token["special"].get<bool>() ? 3 : 4);
  for (const Json& merge : file["model"]["merges"])
    v.merges.push_back(merge.is_string() ? merge.text() : merge[0].text() + " " + merge[1].text());
  return v;
}

GgufVocabulary OfSentencepiece(const std::string& path) {
  const auto model = ParseSentencepieceModel(ReadFile(path));
  EXPECT_TRUE(model.ok()) << model.status();
  GgufVocabulary v{.model = "llama"};
  for (const SentencepieceModel::Piece& piece : model->pieces) {
    v.tokens.push_back(piece.text);
    v.scores.push_back(piece.score);
    v.token_types.push_back(static_cast<int32_t>(piece.type));
  }
  return v;
}

std::vector<std::string> TextsOf(const std::string& golden) {
  std::vector<std::string> texts = {"", " ", "  two  blanks ", "</s><s>", "\xff\xfe broken"};
  const Json cases = ReadGolden(golden + "/cases.json");
  for (const Json& one : cases["cases"]) {
    if (one["text"].is_string()) texts.push_back(one["text"].text());
  }
  return texts;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> WrittenAndRead(const GgufVocabulary& vocabulary) {
  const auto files = WriteVocabulary(vocabulary, "");
  if (!files.ok()) return files.status();
  const TemporaryDirectory dir;
  for (const TokenizerFile& file : *files) dir.Write(file.name, file.text);
  return LoadTokenizerFromDirectory(dir.path());
}

void ExpectSame(const GgufVocabulary& vocabulary, const std::vector<std::string>& texts) {
  const auto own = MakeTokenizerFromGguf(vocabulary);
  ASSERT_TRUE(own.ok()) << own.status();
  const auto read = WrittenAndRead(vocabulary);
  ASSERT_TRUE(read.ok()) << read.status();
  const Tokenizer &a = **own, &b = **read;
  ASSERT_EQ(a.vocab_size(), b.vocab_size());
  EXPECT_EQ(a.bos_id(), b.bos_id());
  EXPECT_EQ(a.eos_ids(), b.eos_ids());
  EXPECT_EQ(a.strips_leading_space(), b.strips_leading_space());
  for (TokenId id = 0; id < a.vocab_size(); ++id) {
    EXPECT_EQ(a.TokenPiece(id), b.TokenPiece(id)) << id;
    EXPECT_EQ(a.TokenBytes(id), b.TokenBytes(id)) << id;
    EXPECT_EQ(a.IsSpecial(id), b.IsSpecial(id)) << id;
  }
  for (const std::string& text : texts) {
    for (const bool special : {false, true}) {
      const EncodeOptions options{.parse_special_tokens = special};
      EXPECT_EQ(*a.Encode(text, options), *b.Encode(text, options)) << text;
    }
  }
}

class ByteLevel : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(ByteLevel, IsTokenizerJson) {
  const auto& [name, pre] = GetParam();
  GgufVocabulary v = OfTokenizerJson(name, pre);
  v.eos_id = 1;
  v.add_bos = false;
  ExpectSame(v, TextsOf(name));
  v.bos_id = 0;
  v.add_bos = v.add_eos = true;
  v.eot_id = 2;
  ExpectSame(v, TextsOf(name));
}

INSTANTIATE_TEST_SUITE_P(All, ByteLevel,
                         testing::Values(std::pair("gpt2", "gpt-2"), std::pair("smollm", "smollm"),
                                         std::pair("llama3", "llama-bpe"), std::pair("bloom", "bloom"),
                                         std::pair("qwen2", "qwen2")),
                         [](const auto& info) { return std::string(info.param.first); });

// Scores that tie, user-defined and unused pieces, two blanks: what a list of merges would lose.
TEST(WriteVocabularyTest, ScoredPiecesAreSentencepiecesFile) {
  for (const char* name : {"llama_spm", "llama_spm_extended"}) {
    SCOPED_TRACE(name);
    GgufVocabulary v = OfSentencepiece(kGoldens + name + "/tokenizer.model");
    ExpectSame(v, TextsOf(name));
    v.add_space_prefix = false;
    v.add_bos = false;
    v.add_eos = true;
    ExpectSame(v, TextsOf(name));
  }
}

TEST(WriteVocabularyTest, TheRealVocabularyOfLlama) {
  constexpr char kModel[] = "../shared/data/llama_tokenizer.model";
  if (!std::filesystem::exists(kModel)) GTEST_SKIP() << kModel << " is not there";
  ExpectSame(OfSentencepiece(kModel), TextsOf("llama_spm"));
}

TEST(WriteVocabularyTest, AFileOfSentencepieceReadsBackAsItWas) {
  const auto model = ParseSentencepieceModel(ReadFile(kGoldens + "llama_spm/tokenizer.model"));
  ASSERT_TRUE(model.ok());
  const auto again = ParseSentencepieceModel(WriteSentencepieceModel(*model));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->bos_id, model->bos_id);
  EXPECT_EQ(again->eos_id, model->eos_id);
  EXPECT_EQ(again->padding_id, model->padding_id);
  EXPECT_EQ(again->unknown_id, model->unknown_id);
  EXPECT_EQ(again->byte_fallback, model->byte_fallback);
  EXPECT_EQ(again->add_dummy_prefix, model->add_dummy_prefix);
  EXPECT_EQ(again->remove_extra_whitespaces, model->remove_extra_whitespaces);
  EXPECT_EQ(again->escape_whitespaces, model->escape_whitespaces);
  ASSERT_EQ(again->pieces.size(), model->pieces.size());
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    EXPECT_EQ(again->pieces[id].text, model->pieces[id].text);
    EXPECT_EQ(again->pieces[id].score, model->pieces[id].score);
    EXPECT_EQ(again->pieces[id].type, model->pieces[id].type);
  }
}

TEST(WriteVocabularyTest, TheChatTemplateGoesAlong) {
  const auto files = WriteVocabulary(OfTokenizerJson("gpt2", "gpt-2"), "{{ messages }}");
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ((*files)[1].name, "tokenizer_config.json");
  EXPECT_EQ((*ParseJson((*files)[1].text))["chat_template"], "{{ messages }}");
}

TEST(WriteVocabularyTest, PiecesThatNoFileHoldsAreNamed) {
  const auto refusal = [](const std::string& piece) {
    GgufVocabulary v = OfTokenizerJson("gpt2", "gpt-2");
    v.tokens[7] = piece;
    return std::string(WriteVocabulary(v, "").status().message());
  };
  const std::string sixth = OfTokenizerJson("gpt2", "gpt-2").tokens[6];
  EXPECT_THAT(refusal(sixth), HasSubstr("pieces 6 and 7 are both"));
  EXPECT_THAT(refusal(""), HasSubstr("piece 7 is empty"));
  EXPECT_THAT(refusal("\xff"), HasSubstr("piece 7"));
  EXPECT_THAT(std::string(WriteVocabulary({.model = "bert", .tokens = {"a"}}, "").status().message()),
              HasSubstr("\"bert\" is not supported"));
}

}  // namespace
}  // namespace bellwether
