#include "model/checkpoint/meta_llama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/meta_params.h"
#include "model/checkpoint/testing_files.h"
#include "model/checkpoint/testing_meta.h"

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::MetaOptions;
using testing_files::TemporaryDirectory;

constexpr char kShape[] = "random:llama?hidden=64,layers=2,heads=8,kv_heads=4,ffn=192,vocab=160";

std::unique_ptr<Checkpoint> Source(const std::string& format) {
  auto opened = Checkpoint::Open(absl::StrCat(kShape, ":", format));
  EXPECT_TRUE(opened.ok()) << opened.status();
  return *std::move(opened);
}

std::string ErrorOf(const std::string& dir) {
  const auto opened = Checkpoint::Open(dir);
  return opened.ok() ? "opens" : std::string(opened.status().message());
}

// Every tensor as a whole, and a window that cuts shards and heads.
void ExpectSameTensors(const Checkpoint& ours, const Checkpoint& theirs) {
  ASSERT_EQ(ours.Keys(), theirs.Keys());
  for (const TensorKey& key : theirs.Keys()) {
    EXPECT_EQ(testing_files::WholeTensor(ours, key).values, testing_files::WholeTensor(theirs, key).values)
        << Name(key);
    const TensorInfo& info = *theirs.Find(key);
    const TensorWindow window = {info.rows / 3, info.rows, info.cols / 5, info.cols - 1};
    std::vector<float> a((window.row_end - window.row_begin) * (window.col_end - window.col_begin));
    std::vector<float> b = a;
    ASSERT_TRUE(ours.ReadFloats(key, window, absl::MakeSpan(a)).ok());
    ASSERT_TRUE(theirs.ReadFloats(key, window, absl::MakeSpan(b)).ok());
    EXPECT_EQ(a, b) << Name(key);
  }
}

TEST(MetaLlamaTest, ShardsAreJoinedAndRowsPutInOrder) {
  for (const std::string format : {"fp32", "fp16", "bf16"}) {
    const auto source = Source(format);
    for (const int shards : {1, 2, 4, 8}) {
      if (shards == 8 && format != "fp16") continue;
      for (const bool embedding_rows : {false, true}) {
        const TemporaryDirectory dir;
        // 4 KV heads of 8 rows: 8 shards hold half a head each.
        testing_files::WriteMetaLlama(*source, dir, {.shards = shards, .embedding_rows = embedding_rows});
        const auto opened = Checkpoint::Open(dir.path());
        ASSERT_TRUE(opened.ok()) << opened.status();
        EXPECT_EQ((*opened)->container(), "meta");
        EXPECT_EQ((*opened)->config().vocab, 160);
        EXPECT_EQ((*opened)->config().ffn, 192);
        EXPECT_FALSE((*opened)->config().tied_head);
        ExpectSameTensors(**opened, *source);
        EXPECT_EQ((*opened)->ModelId()->size(), 64u);
      }
    }
  }
}

TEST(MetaLlamaTest, AShardStandsForItsDirectory) {
  const auto source = Source("bf16");
  const TemporaryDirectory dir;
  testing_files::WriteMetaLlama(*source, dir, {.shards = 2});
  const auto opened = Checkpoint::Open(dir.path() + "/consolidated.00.pth");
  ASSERT_TRUE(opened.ok()) << opened.status();
  ExpectSameTensors(**opened, *source);
}

TEST(MetaLlamaTest, TypesAreRoundedThroughShards) {
  const auto source = Source("fp32");
  const TemporaryDirectory dir;
  testing_files::WriteMetaLlama(*source, dir, {.shards = 2});
  const auto rounded = Checkpoint::Open(dir.path(), {.dtype = DType::kF16});
  const auto expected = Checkpoint::Open(absl::StrCat(kShape, ":fp32"), {.dtype = DType::kF16});
  ASSERT_TRUE(rounded.ok() && expected.ok());
  ExpectSameTensors(**rounded, **expected);
}

TEST(MetaLlamaTest, AMissingShardIsNamed) {
  const TemporaryDirectory dir;
  testing_files::WriteMetaLlama(*Source("bf16"), dir, {.shards = 4});
  std::filesystem::remove(dir.path() + "/consolidated.03.pth");
  EXPECT_THAT(ErrorOf(dir.path()), HasSubstr("is a shard missing?"));
  std::filesystem::remove(dir.path() + "/consolidated.01.pth");
  EXPECT_THAT(ErrorOf(dir.path()), HasSubstr("consolidated.01.pth is missing, where later shards are there"));
}

TEST(MetaLlamaTest, ShardsOfDifferentModelsAreRefused) {
  const TemporaryDirectory dir, other;
  testing_files::WriteMetaLlama(*Source("bf16"), dir, {.shards = 2});
  testing_files::WriteMetaLlama(*Source("fp16"), other, {.shards = 2});
  std::filesystem::copy_file(other.path() + "/consolidated.01.pth", dir.path() + "/consolidated.01.pth",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(ErrorOf(dir.path()), HasSubstr("of type F16, unlike"));
}

// Only their norms, which every shard has whole, tell shards of one shape and type apart.
TEST(MetaLlamaTest, ShardsOfDifferentModelsOfOneShapeAreRefused) {
  const TemporaryDirectory dir, other;
  testing_files::WriteMetaLlama(*Source("bf16"), dir, {.shards = 2});
  const auto stranger = Checkpoint::Open(absl::StrCat(kShape, ":bf16:9"));
  ASSERT_TRUE(stranger.ok()) << stranger.status();
  testing_files::WriteMetaLlama(**stranger, other, {.shards = 2});
  std::filesystem::copy_file(other.path() + "/consolidated.01.pth", dir.path() + "/consolidated.01.pth",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(ErrorOf(dir.path()), AllOf(HasSubstr("consolidated.01.pth: tensor \"layers.0.attention_norm"),
                                         HasSubstr("these are shards of different models")));
}

TEST(MetaLlamaTest, AModelWithoutAHeadIsRefused) {
  const TemporaryDirectory dir;
  testing_files::WriteMetaLlama(**Checkpoint::Open(absl::StrCat(kShape, ",tied=1:bf16")), dir, {});
  // The head of a tied one is its embedding, which has no file of its own.
  EXPECT_THAT(ErrorOf(dir.path()), HasSubstr("head weight (output.weight) is missing"));
}

TEST(MetaLlamaTest, TheTokenizerMayLieOneDirectoryUp) {
  const TemporaryDirectory parent;
  const TemporaryDirectory scratch;
  testing_files::WriteMetaLlama(*Source("bf16"), scratch, {});
  const std::string dir = parent.path() + "/7B";
  std::filesystem::copy(scratch.path(), dir);
  const auto tokenizer_error = [&] {
    const auto opened = Checkpoint::Open(dir);
    return opened.ok() ? (*opened)->LoadTokenizer().status() : opened.status();
  };
  EXPECT_TRUE(absl::IsNotFound(tokenizer_error())) << tokenizer_error();
  parent.Write("tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\n");
  EXPECT_THAT(std::string(tokenizer_error().message()), HasSubstr("tiktoken"));
}

ModelConfig ConfigOf(const std::string& json, int32_t vocab = 32000, bool rope_in_layers = false) {
  const auto params = ParseMetaParams(json);
  EXPECT_TRUE(params.ok()) << params.status();
  return CompleteMetaConfig(*params, vocab, rope_in_layers);
}
std::string ParamsError(const std::string& json) {
  return std::string(ParseMetaParams(json).status().message());
}

// The files as Meta published them.
TEST(MetaParamsTest, Generations) {
  const ModelConfig first = ConfigOf(
      R"({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1})");
  EXPECT_EQ(first.ffn, 11008);
  EXPECT_EQ(first.kv_heads, 32);
  EXPECT_EQ(first.max_positions, 2048);
  EXPECT_EQ(first.rope_theta, 10000);
  EXPECT_THAT(first.eos, ElementsAre(2));
  const std::string large =
      R"({"dim": 8192, "multiple_of": 256, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1})";
  EXPECT_EQ(ConfigOf(large).ffn, 22016);
  EXPECT_EQ(ConfigOf(large, 32000, /*rope_in_layers=*/true).max_positions, 2048);
  EXPECT_EQ(ConfigOf(large).max_positions, 4096);
  const ModelConfig second = ConfigOf(
      R"({"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8,
          "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1})");
  EXPECT_EQ(second.ffn, 28672);
  EXPECT_EQ(second.kv_heads, 8);
  const ModelConfig code = ConfigOf(
      R"({"dim": 4096, "n_layers": 32, "n_heads": 32, "multiple_of": 256, "ffn_dim_multiplier": 1.0,
          "norm_eps": 1e-5, "rope_theta": 1000000})",
      32016);
  EXPECT_EQ(code.max_positions, 16384);
  EXPECT_EQ(code.rope_theta, 1e6);
  const ModelConfig third = ConfigOf(
      R"({"dim": 4096, "ffn_dim_multiplier": 1.3, "multiple_of": 1024, "n_heads": 32, "n_kv_heads": 8,
          "n_layers": 32, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": true,
          "vocab_size": 128256})",
      128256);
  EXPECT_EQ(third.ffn, 14336);
  EXPECT_EQ(third.max_positions, 131072);
  ASSERT_TRUE(third.rope_scaling.has_value());
  EXPECT_EQ(third.rope_scaling->factor, 8);
  EXPECT_EQ(third.bos, 128000);
  EXPECT_THAT(third.eos, ElementsAre(128001, 128008, 128009));
  const ModelConfig small = ConfigOf(
      R"({"dim": 2048, "ffn_dim_multiplier": 1.5, "multiple_of": 256, "n_heads": 32, "n_kv_heads": 8,
          "n_layers": 16, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": true,
          "vocab_size": 128256})",
      128256);
  EXPECT_EQ(small.ffn, 8192);
  EXPECT_EQ(small.rope_scaling->factor, 32);
}

TEST(MetaParamsTest, KeysAreHonouredOrRefused) {
  const std::string base = R"({"dim": 64, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5)";
  EXPECT_EQ(ConfigOf(base + R"(, "rope_theta": 20000})").rope_theta, 20000);
  EXPECT_EQ(ConfigOf(base + R"(, "use_scaled_rope": true, "rope_scaling_factor": 16})").rope_scaling->factor,
            16);
  EXPECT_EQ(ConfigOf(base + R"(, "use_scaled_rope": true, "rope_high_freq_factor": 2})")
                .rope_scaling->high_frequency_factor,
            2);
  EXPECT_FALSE(ConfigOf(base + R"(, "use_scaled_rope": false, "rope_scaling_factor": 16})").rope_scaling);
  EXPECT_EQ(ConfigOf(base + R"(, "max_seq_len": 300})").max_positions, 300);
  EXPECT_EQ(ConfigOf(base + R"(, "hidden_dim": 77})").ffn, 77);
  EXPECT_EQ(ConfigOf(base + R"(, "head_dim": 32})").head_dim, 32);
  EXPECT_EQ(ConfigOf(base + R"(, "max_batch_size": 32, "moe": null})").hidden, 64);
  for (const std::string key :
       {"moe", "sliding_window", "vision_chunk_size", "quantization_args", "use_qk_norm"})
    EXPECT_THAT(ParamsError(absl::StrCat(base, ", \"", key, "\": 1}")), HasSubstr(key));
  EXPECT_THAT(ParamsError(base + R"(, "n_kv_heads": 0})"), HasSubstr("n_kv_heads"));
  EXPECT_THAT(ParamsError(base + R"(, "multiple_of": 0})"), HasSubstr("multiple_of"));
  EXPECT_THAT(ParamsError(base + R"(, "rope_theta": -1})"), HasSubstr("rope_theta"));
  EXPECT_THAT(ParamsError(R"({"n_layers": 2})"), HasSubstr("dim"));
}

}  // namespace
}  // namespace bellwether
