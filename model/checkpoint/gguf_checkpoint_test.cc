#include "model/checkpoint/gguf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::Bytes;
using testing_files::GgufWriter;
using testing_files::TemporaryDirectory;

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

// 0, 1, 2 ...
std::string Counting(int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return Bytes(values);
}

void AddF32(GgufWriter& writer, const std::string& name, const std::vector<uint64_t>& sizes) {
  uint64_t count = 1;
  for (uint64_t size : sizes) count *= size;
  writer.AddTensor(name, kF32, sizes, Counting(static_cast<int64_t>(count)));
}

// hidden 8, 2 query heads and 1 KV head of 4, ffn 12, 10 tokens.
void AddLlamaMetadata(GgufWriter& writer) {
  writer.Add("general.architecture", std::string("llama"));
  writer.Add("llama.context_length", uint32_t{64});
  writer.Add("llama.embedding_length", uint32_t{8});
  writer.Add("llama.block_count", uint32_t{1});
  writer.Add("llama.feed_forward_length", uint32_t{12});
  writer.Add("llama.attention.head_count", uint32_t{2});
  writer.Add("llama.attention.head_count_kv", uint32_t{1});
  writer.Add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

void AddLlamaTensors(GgufWriter& writer) {
  AddF32(writer, "token_embd.weight", {8, 10});
  AddF32(writer, "output_norm.weight", {8});
  AddF32(writer, "blk.0.attn_norm.weight", {8});
  AddF32(writer, "blk.0.attn_q.weight", {8, 8});
  AddF32(writer, "blk.0.attn_k.weight", {8, 4});
  AddF32(writer, "blk.0.attn_v.weight", {8, 4});
  AddF32(writer, "blk.0.attn_output.weight", {8, 8});
  AddF32(writer, "blk.0.ffn_norm.weight", {8});
  AddF32(writer, "blk.0.ffn_gate.weight", {8, 12});
  AddF32(writer, "blk.0.ffn_up.weight", {8, 12});
  AddF32(writer, "blk.0.ffn_down.weight", {12, 8});
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const GgufWriter& writer) {
  TemporaryDirectory dir;
  return Checkpoint::Open(dir.Write("model.gguf", writer.file()));
}

// A whole LLaMA with more metadata and tensors.
std::string Refusal(const std::function<void(GgufWriter&)>& add) {
  GgufWriter writer;
  AddLlamaMetadata(writer);
  add(writer);
  AddLlamaTensors(writer);
  return std::string(Open(writer).status().message());
}

// First column of every row of a matrix.
std::vector<float> FirstColumn(const Checkpoint& checkpoint, const TensorKey& key) {
  std::vector<float> out(checkpoint.Find(key)->rows);
  EXPECT_TRUE(checkpoint.ReadFloats(key, {0, checkpoint.Find(key)->rows, 0, 1}, absl::MakeSpan(out)).ok());
  return out;
}

TEST(GgufCheckpointTest, LlamaWithTheRowsOfQueriesAndKeysPutBack) {
  GgufWriter writer;
  AddLlamaMetadata(writer);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{2});
  writer.Add("tokenizer.ggml.eot_token_id", uint32_t{7});
  writer.Add("tokenizer.chat_template", std::string("{{ template }}"));
  AddLlamaTensors(writer);
  AddF32(writer, "blk.0.attn_q.bias", {8});
  AddF32(writer, "blk.0.attn_k.bias", {4});
  AddF32(writer, "blk.0.attn_v.bias", {4});
  auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Checkpoint& c = **checkpoint;
  EXPECT_EQ(c.container(), "gguf");
  EXPECT_EQ(c.config().head_dim, 4);
  EXPECT_EQ(c.config().vocab, 10);
  EXPECT_EQ(c.config().rope_theta, 10000);
  EXPECT_EQ(c.config().norm_epsilon, 1e-5f);
  EXPECT_TRUE(c.config().tied_head);
  EXPECT_TRUE(c.config().qkv_bias);
  EXPECT_FALSE(c.config().attention_output_bias || c.config().mlp_bias);
  EXPECT_EQ(c.config().bos, 1);
  EXPECT_THAT(c.config().eos, ElementsAre(2, 7));
  EXPECT_EQ(c.chat_template_text(), "{{ template }}");
  EXPECT_TRUE(absl::IsNotFound(c.LoadTokenizer().status()));

  // Rows 0, 1, 2, 3 of a head in the file are rows 0, 2, 1, 3 of it in Hugging Face's order; 8 columns a row.
  EXPECT_THAT(FirstColumn(c, {TensorRole::kQuery, 0}), ElementsAre(0, 16, 8, 24, 32, 48, 40, 56));
  EXPECT_THAT(FirstColumn(c, {TensorRole::kKey, 0}), ElementsAre(0, 16, 8, 24));
  EXPECT_THAT(FirstColumn(c, {TensorRole::kValue, 0}), ElementsAre(0, 8, 16, 24));
  std::vector<float> bias(8);
  ASSERT_TRUE(c.ReadFloats({TensorRole::kQuery, 0, true}, {0, 1, 0, 8}, absl::MakeSpan(bias)).ok());
  EXPECT_THAT(bias, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(GgufCheckpointTest, BloomWithItsFusedTensorInBlocks) {
  GgufWriter writer;
  writer.Add("general.architecture", std::string("bloom"));
  writer.Add("bloom.context_length", uint32_t{64});
  writer.Add("bloom.embedding_length", uint32_t{4});
  writer.Add("bloom.block_count", uint32_t{1});
  writer.Add("bloom.feed_forward_length", uint32_t{16});
  writer.Add("bloom.attention.head_count", uint32_t{2});
  writer.Add("bloom.attention.layer_norm_epsilon", 1e-5f);
  AddF32(writer, "token_embd.weight", {4, 9});
  for (const char* norm : {"token_embd_norm", "output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) {
    AddF32(writer, absl::StrCat(norm, ".weight"), {4});
    AddF32(writer, absl::StrCat(norm, ".bias"), {4});
  }
  const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    AddF32(writer, "blk.0." + name + ".weight", {cols, rows});
    AddF32(writer, "blk.0." + name + ".bias", {rows});
  };
  matrix("attn_qkv", 12, 4);
  matrix("attn_output", 4, 4);
  matrix("ffn_up", 16, 4);
  matrix("ffn_down", 4, 16);
  AddF32(writer, "output.weight", {4, 9});
  auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Checkpoint& c = **checkpoint;
  EXPECT_EQ(c.config().architecture, Architecture::kBloom);
  EXPECT_FALSE(c.config().tied_head);
  EXPECT_THAT(FirstColumn(c, {TensorRole::kQuery, 0}), ElementsAre(0, 4, 8, 12));
  EXPECT_THAT(FirstColumn(c, {TensorRole::kKey, 0}), ElementsAre(16, 20, 24, 28));
  EXPECT_THAT(FirstColumn(c, {TensorRole::kValue, 0}), ElementsAre(32, 36, 40, 44));
  std::vector<float> bias(3);
  ASSERT_TRUE(c.ReadFloats({TensorRole::kValue, 0, true}, {0, 1, 1, 4}, absl::MakeSpan(bias)).ok());
  EXPECT_THAT(bias, ElementsAre(9, 10, 11));
}

TEST(GgufCheckpointTest, StoredRopeFactorsAreTaken) {
  GgufWriter writer;
  AddLlamaMetadata(writer);
  AddLlamaTensors(writer);
  writer.AddTensor("rope_freqs.weight", kF32, {2}, Bytes(std::vector<float>{1, 8}));
  auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->config().rope_factors, ElementsAre(1, 8));
  EXPECT_THAT(Refusal([](GgufWriter& w) { AddF32(w, "rope_freqs.weight", {3}); }),
              HasSubstr("'rope_freqs.weight' should hold 2 numbers"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { AddF32(w, "rope_freqs.weight", {2}); }),
              HasSubstr("rope factor 0"));
}

TEST(GgufCheckpointTest, WhatChangesTheMathsIsRefusedByName) {
  EXPECT_EQ(Refusal([](GgufWriter&) {}), "");
  EXPECT_EQ(Refusal([](GgufWriter& w) { w.Add("llama.rope.scaling.type", std::string("none")); }), "");
  EXPECT_THAT(Refusal([&](GgufWriter& w) { w.Add("llama.rope.scaling.type", std::string("longrope")); }),
              HasSubstr("'llama.rope.scaling.type' is \"longrope\""));
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("llama.expert_count", uint32_t{8}); }),
              HasSubstr("'llama.expert_count'"));
  EXPECT_EQ(Refusal([](GgufWriter& w) { w.Add("llama.expert_count", uint32_t{0}); }), "");
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("llama.logit_scale", 0.5f); }),
              HasSubstr("'llama.logit_scale'"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("llama.attention.causal", false); }),
              HasSubstr("'llama.attention.causal'"));
  EXPECT_EQ(Refusal([](GgufWriter& w) { w.Add("llama.attention.causal", true); }), "");
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("llama.rope.dimension_count", uint32_t{2}); }),
              HasSubstr("rotates a part of each head"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("llama.attention.value_length", uint32_t{8}); }),
              HasSubstr("'llama.attention.value_length' differs"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.AddRaw("split.count", 2, Bytes(uint16_t{3})); }),
              HasSubstr("one of 3 parts"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { AddF32(w, "blk.0.attn_sub_norm.weight", {4}); }),
              HasSubstr("'blk.0.attn_sub_norm.weight' is not known"));
  EXPECT_THAT(Refusal([](GgufWriter& w) {
                AddF32(w, "blk.1.attn_q.weight", {8, 8});
              }),
              HasSubstr("lies beyond the 1 layers"));
  EXPECT_THAT(
      Refusal([](GgufWriter& w) { w.AddTensor("blk.0.attn_norm.bias", kQ8_0, {32}, std::string(34, 0)); }),
      HasSubstr("is a vector of type Q8_0"));
  EXPECT_THAT(Refusal([](GgufWriter& w) { w.Add("tokenizer.chat_template", uint32_t{1}); }),
              HasSubstr("'tokenizer.chat_template' should be a text"));
}

TEST(GgufCheckpointTest, MissingKeysAndTensorsAreNamed) {
  GgufWriter other;
  other.Add("general.architecture", std::string("gpt2"));
  EXPECT_THAT(Open(other).status().message(), HasSubstr("architecture 'gpt2' are not supported"));
  GgufWriter nothing;
  nothing.Add("general.architecture", std::string("llama"));
  EXPECT_THAT(Open(nothing).status().message(), HasSubstr("'llama.embedding_length' is missing"));
  GgufWriter vocabulary_only;
  AddLlamaMetadata(vocabulary_only);
  EXPECT_THAT(Open(vocabulary_only).status().message(), HasSubstr("'token_embd.weight' is missing"));
  AddF32(vocabulary_only, "token_embd.weight", {8, 10});
  EXPECT_THAT(Open(vocabulary_only).status().message(),
              HasSubstr("layer 0 attention norm weight (1 x 8) is missing"));
}

// 123 is '{', which is where the JSON of safetensors begins.
TEST(GgufCheckpointTest, NoCountOfTensorsMakesAFileAnother) {
  GgufWriter writer;
  AddLlamaMetadata(writer);
  AddLlamaTensors(writer);
  for (int i = 11; i < 123; ++i) AddF32(writer, absl::StrCat("blk.", i, ".attn_rot_embd"), {2});
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->container(), "gguf");
}

TEST(GgufCheckpointTest, FilesThatAreNotGgufAreNamed) {
  TemporaryDirectory dir;
  const auto refusal = [&](const std::string& name, const std::string& bytes) {
    return std::string(Checkpoint::Open(dir.Write(name, bytes)).status().message());
  };
  EXPECT_THAT(refusal("a.bin", "tjgg" + std::string(100, 0)), HasSubstr("a.bin: ggjt v0 is not known"));
  EXPECT_THAT(refusal("config.json", "{\"a\": 1}"), HasSubstr("give the directory it lies in"));
  EXPECT_THAT(refusal("x.gguf", "what"),
              HasSubstr("neither GGUF nor GGML nor safetensors nor a file of torch"));
  EXPECT_THAT(refusal("x.gguf", ""), HasSubstr("empty file"));
}

TEST(GgufCheckpointTest, VocabularyIsHandedOn) {
  GgufWriter writer;
  writer.Add("tokenizer.ggml.model", std::string("gpt2"));
  writer.Add("tokenizer.ggml.pre", std::string("smollm"));
  writer.Add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab"});
  writer.Add("tokenizer.ggml.scores", std::vector<float>{0, -1, -2});
  writer.Add("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 3});
  writer.Add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.unknown_token_id", uint32_t{0});
  writer.AddRaw("tokenizer.ggml.padding_token_id", 5, Bytes(int32_t{-1}));
  writer.Add("tokenizer.ggml.add_bos_token", false);
  const std::string file = writer.file();
  const auto gguf = GgufFile::Parse({reinterpret_cast<const std::byte*>(file.data()), file.size()});
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const auto vocabulary = ReadGgufVocabulary(*gguf);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->model, "gpt2");
  EXPECT_EQ(vocabulary->pre, "smollm");
  EXPECT_THAT(vocabulary->tokens, ElementsAre("a", "b", "ab"));
  EXPECT_THAT(vocabulary->scores, ElementsAre(0, -1, -2));
  EXPECT_THAT(vocabulary->token_types, ElementsAre(1, 1, 3));
  EXPECT_THAT(vocabulary->merges, ElementsAre("a b"));
  EXPECT_EQ(vocabulary->bos_id, 1);
  EXPECT_EQ(vocabulary->unknown_id, 0);
  EXPECT_FALSE(vocabulary->padding_id.has_value() || vocabulary->eos_id.has_value());
  EXPECT_EQ(vocabulary->add_bos, false);
  EXPECT_FALSE(vocabulary->add_space_prefix.has_value());
}

TEST(GgufCheckpointTest, EveryGoldenFileOpensAndItsFormsAgree) {
  int opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/goldens/models")) {
    const std::string path = (entry.path() / "model.gguf").string();
    if (!std::filesystem::exists(path)) continue;
    auto checkpoint = Checkpoint::Open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ++opened;
    for (const TensorKey& key : (*checkpoint)->Keys()) {
      const TensorInfo& info = *(*checkpoint)->Find(key);
      if (!IsQuantized(info.format.format)) continue;
      // The last row, from its second group on: scale * q + offset is what ReadFloats gives.
      const int group = info.format.group;
      if (info.cols <= group) continue;
      const TensorWindow window = {info.rows - 1, info.rows, group, info.cols};
      std::vector<float> floats(info.cols - group);
      ASSERT_TRUE((*checkpoint)->ReadFloats(key, window, absl::MakeSpan(floats)).ok());
      auto quantized = (*checkpoint)->ReadQuantized(key, window);
      ASSERT_TRUE(quantized.ok()) << quantized.status();
      for (size_t i = 0; i < floats.size(); ++i) {
        float value = quantized->scales[i / group] * static_cast<float>(quantized->q[i]);
        if (info.format.has_offset) value = value + quantized->offsets[i / group];
        ASSERT_EQ(floats[i], value) << path << " " << Name(key) << " " << i;
      }
      EXPECT_FALSE((*checkpoint)->ReadQuantized(key, {0, 1, 1, info.cols}).ok());
    }
  }
  EXPECT_GE(opened, 1);
}

}  // namespace
}  // namespace bellwether
