#include "model/checkpoint/ggml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/random.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/ggml_checkpoint.h"
#include "model/checkpoint/testing_files.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace bellwether {
namespace {

using testing::HasSubstr;
using testing_files::Bytes;
using testing_files::TemporaryDirectory;

constexpr const char* kRealModel = "../shared/data/llama_tokenizer.model";

std::string ReadAll(const std::string& path) {
  std::stringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

std::string Golden(const std::string& name) {
  return ReadAll("tests/goldens/models/" + name + "/ggml-model.bin");
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Refusal(const std::string& bytes) {
  return std::string(GgmlFile::Parse(AsBytes(bytes)).status().message());
}

// A header of one head of 32 columns and one token, and whatever follows.
std::string SmallFile(const std::string& magic, const std::string& rest) {
  return magic + Bytes(std::vector<uint32_t>{1, 32, 32, 1, 1, 32, 2}) + Bytes(uint32_t{1}) + "a" + rest;
}
std::string TensorHead(uint32_t type, uint32_t cols, uint32_t rows) {
  return Bytes(std::vector<uint32_t>{2, 1, type, cols, rows}) + "x";
}

TEST(GgmlTest, ReadsHeaderVocabularyAndTensors) {
  const std::string bytes = Golden("ggjt-v1-mixed");
  const GgmlFile file = *GgmlFile::Parse(AsBytes(bytes));
  EXPECT_EQ(file.container, "ggjt v1");
  EXPECT_EQ(file.vocab, 288);
  EXPECT_EQ(file.layers, 2);
  EXPECT_EQ(file.pieces[3 + 'A'], "A");
  EXPECT_EQ(file.scores[260], -2.0f);
  ASSERT_EQ(file.tensors.size(), 21u);
  for (const BlockTensor& tensor : file.tensors) EXPECT_EQ(tensor.offset % 32, 0u) << tensor.name;
  EXPECT_EQ(GgmlFile::Parse(AsBytes(Golden("ggml-q4_0")))->scores.size(), 0u);

  const ModelConfig config = *GgmlConfig(file);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.ffn, 96);
  EXPECT_EQ(config.norm_epsilon, 1e-6);
  EXPECT_FALSE(config.tied_head);
}

TEST(GgmlTest, NoCutFileIsRead) {
  const std::string bytes = Golden("ggml-q4_0");
  const GgmlFile whole = *GgmlFile::Parse(AsBytes(bytes));
  for (size_t size = 0; size < bytes.size(); size += size < 4000 ? 1 : 997) {
    const std::string cut = bytes.substr(0, size);
    const auto file = GgmlFile::Parse(AsBytes(cut));
    // Where the last tensor ended there is nothing that says more should come: the config will.
    if (!file.ok()) continue;
    EXPECT_FALSE(GgmlConfig(*file).ok() && file->tensors.size() == whole.tensors.size()) << size;
  }
}

TEST(GgmlTest, WhatIsNotReadIsNamed) {
  EXPECT_THAT(Refusal("what is this"), HasSubstr("no file of GGML"));
  EXPECT_THAT(Refusal("tjgg" + Bytes(uint32_t{4})), HasSubstr("ggjt v4 is not known"));
  EXPECT_THAT(Refusal("fmgg" + Bytes(uint32_t{2})), HasSubstr("ggmf v2 is not known"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", TensorHead(4, 32, 1))),
              HasSubstr("has type Q4_2, which is not read from ggml"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", TensorHead(6, 32, 1))), HasSubstr("Q5_0"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", TensorHead(77, 32, 1))), HasSubstr("unknown type 77"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", TensorHead(2, 33, 1))), HasSubstr("1 x 33"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", TensorHead(0, 0xffffffff, 0xffffffff))), HasSubstr("beyond the end"));
  EXPECT_THAT(Refusal(SmallFile("lmgg", Bytes(std::vector<uint32_t>{3, 1, 0, 1}))),
              HasSubstr("3 dimensions"));
  const std::string twice = TensorHead(0, 1, 1) + Bytes(1.0f);
  EXPECT_THAT(Refusal(SmallFile("lmgg", twice + twice)), HasSubstr("there twice"));
  EXPECT_THAT(Refusal("lmgg" + Bytes(std::vector<uint32_t>{1u << 30, 1, 1, 1, 1, 1, 1})),
              HasSubstr("n_vocab"));
  EXPECT_THAT(Refusal("lmgg" + Bytes(std::vector<uint32_t>{1, 32, 32, 1, 1, 32, 2, 1u << 31})),
              HasSubstr("claims"));
}

// The first programs wrote all scales of a row and then its integers, under the same magic.
TEST(GgmlTest, TheOldestRowLayoutIsTold) {
  constexpr uint32_t kBlocks = 64;
  std::string scales, integers, blocks;
  for (uint32_t block = 0; block < kBlocks; ++block) {
    std::string some;
    for (uint32_t i = 0; i < 16; ++i) some += static_cast<char>(Philox4x32({block, i, 0, 0}, {1, 2})[0]);
    scales += Bytes(0.01f);
    integers += some;
    blocks += Bytes(0.01f) + some;
  }
  const std::string head = TensorHead(2, 32 * kBlocks, 1);
  EXPECT_THAT(Refusal(SmallFile("lmgg", head + scales + integers)), HasSubstr("of the very first layout"));
  EXPECT_EQ(Refusal(SmallFile("lmgg", head + blocks)), "");
}

TEST(GgmlTest, OneOfSeveralPartsIsRefused) {
  TemporaryDirectory dir;
  const std::string path = dir.Write("ggml-model.bin", Golden("ggml-q4_0"));
  EXPECT_TRUE(Checkpoint::Open(path).ok());
  EXPECT_EQ((*Checkpoint::Open(path))->container(), "ggml");
  dir.Write("ggml-model.bin.1", "a copy of something");
  EXPECT_TRUE(Checkpoint::Open(path).ok());
  dir.Write("ggml-model.bin.1", "lmgg");
  EXPECT_THAT(std::string(Checkpoint::Open(path).status().message()),
              HasSubstr("the first of several parts"));
}

// The vocabulary as the converters of early 2023 wrote it: bytes for byte pieces, blanks for U+2581, nothing
// for control.
GgmlFile WithVocabularyOf(const SentencepieceModel& model, bool scores) {
  GgmlFile file;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    std::string text = model.pieces[id].text;
    if (id < 3) text = id == 0 ? " \u2047 " : "";
    if (3 <= id && id < 259) text = std::string(1, static_cast<char>(id - 3));
    for (size_t at; (at = text.find("\u2581")) != std::string::npos;) text.replace(at, 3, " ");
    file.pieces.push_back(text);
    if (scores) file.scores.push_back(model.pieces[id].score);
  }
  return file;
}

TEST(GgmlTest, TheRealVocabularyTokenisesAsItsSentencepieceFileWithAndWithoutScores) {
  if (!std::filesystem::exists(kRealModel)) GTEST_SKIP() << kRealModel << " is not there";
  const auto model = ParseSentencepieceModel(ReadAll(kRealModel));
  ASSERT_TRUE(model.ok()) << model.status();
  GgufVocabulary real{.model = "llama", .bos_id = 1, .eos_id = 2, .unknown_id = 0, .add_bos = true};
  for (const SentencepieceModel::Piece& piece : model->pieces) {
    real.tokens.push_back(piece.text);
    real.scores.push_back(piece.score);
    real.token_types.push_back(static_cast<int32_t>(piece.type));
  }
  const auto expected = MakeTokenizerFromGguf(std::move(real));
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const bool scores : {true, false}) {
    const auto tokenizer = MakeTokenizerFromGguf(GgmlVocabulary(WithVocabularyOf(*model, scores)));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const char* text : {"Human: hi\nAssistant: ", "你好，有什么可以帮助你的吗？", "  two  blanks\t\n\n",
                             "naïve 🦙 \u2581 x", "def f(x):\n    return x ** 2\n", "</s> is text", ""}) {
      EXPECT_EQ(*(*tokenizer)->Encode(text, {.add_special_tokens = true}),
                *(*expected)->Encode(text, {.add_special_tokens = true}))
          << text << (scores ? "" : ", without scores");
    }
  }
}

}  // namespace
}  // namespace bellwether
