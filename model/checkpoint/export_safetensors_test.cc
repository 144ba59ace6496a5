#include "model/checkpoint/export_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/input_order.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/testing_files.h"
#include "model/checkpoint/testing_meta.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

const std::string kModels = "tests/goldens/models/";
constexpr int64_t kOneFile = int64_t{1} << 40;

// A file with weights and config in one, or named by itself, stands for its directory.
std::string PathOf(const std::string& golden) {
  for (const auto& entry : fs::directory_iterator(kModels + golden)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".pt" || path.extension() == ".gguf" || path.filename() == "ggml-model.bin")
      return path;
  }
  return kModels + golden;
}

std::vector<std::string> GoldensThatBegin(const std::string& beginning) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(beginning)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  EXPECT_FALSE(names.empty()) << beginning;
  return names;
}

absl::Status Export(const std::string& path, const ReadOptions& read, const ExportOptions& options) {
  auto contents = OpenContents(path, read);
  if (!contents.ok()) return contents.status();
  return ExportSafetensors(*std::move(contents), options);
}

void ExpectSameIntegers(const Checkpoint& a, const Checkpoint& b, const TensorKey& key) {
  const TensorInfo& info = *a.Find(key);
  const TensorWindow whole{0, info.rows, 0, info.cols};
  const auto of_a = a.ReadQuantized(key, whole), of_b = b.ReadQuantized(key, whole);
  ASSERT_TRUE(of_a.ok() && of_b.ok()) << of_a.status() << of_b.status();
  EXPECT_EQ(of_a->q, of_b->q) << Name(key);
  EXPECT_EQ(of_a->scales, of_b->scales) << Name(key);
  EXPECT_EQ(of_a->offsets, of_b->offsets) << Name(key);
}

// Writes a checkpoint, reads it back, and compares all that is in it.
void ExpectSameAfterwards(const std::string& path, ReadOptions read = {}, int64_t shard_bytes = kOneFile) {
  SCOPED_TRACE(path);
  const auto source = Checkpoint::Open(path, read);
  ASSERT_TRUE(source.ok()) << source.status();
  const TemporaryDirectory dir;
  const std::string out = dir.path() + "/out";
  const absl::Status written = Export(path, read, {.directory = out, .shard_bytes = shard_bytes});
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(fs::exists(out + "/model.safetensors.index.json"), shard_bytes != kOneFile);
  const auto copy = Checkpoint::Open(out);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->container(), "safetensors");
  EXPECT_EQ((*copy)->config(), (*source)->config());
  ASSERT_EQ((*copy)->Keys(), (*source)->Keys());
  for (const TensorKey& key : (*source)->Keys()) {
    const TensorInfo &of_copy = *(*copy)->Find(key), &of_source = *(*source)->Find(key);
    EXPECT_EQ(of_copy.format, of_source.format) << Name(key);
    EXPECT_EQ(testing_files::WholeTensor(**copy, key).values,
              testing_files::WholeTensor(**source, key).values)
        << Name(key);
    if (IsQuantized(of_source.format.format)) ExpectSameIntegers(**copy, **source, key);
    ASSERT_EQ(of_copy.input_order == nullptr, of_source.input_order == nullptr);
    if (of_source.input_order == nullptr) continue;
    EXPECT_EQ(*of_copy.input_order, *of_source.input_order);
  }
}

TEST(ExportSafetensorsTest, EveryTensorKeepsItsTypeAndBits) {
  for (const std::string name : {"llama-mha", "llama-gqa-sharded-bf16", "llama-mqa-tied", "llama-old-fp16",
                                 "llama-biased", "llama-rope-v5-bf16", "bloom-5-heads-aliases",
                                 "bloom-6-heads-bf16", "mistral-window", "qwen2-tied", "qwen3-wide-heads"})
    ExpectSameAfterwards(kModels + name);
}

TEST(ExportSafetensorsTest, InSeveralFiles) {
  ExpectSameAfterwards(kModels + "llama-mha", {}, /*shard_bytes=*/5000);
  ExpectSameAfterwards(kModels + "bloom-4-heads", {}, /*shard_bytes=*/1);
  ExpectSameAfterwards(PathOf("gptq-v1-llama-4bit"), {}, /*shard_bytes=*/1);
}

TEST(ExportSafetensorsTest, AsItWasRead) {
  ExpectSameAfterwards(kModels + "llama-mha", {.dtype = DType::kF16});
  ExpectSameAfterwards(kModels + "llama-mha", {.lora = {{"tests/goldens/lora/llama-vocabulary", 0.5}}});
  ExpectSameAfterwards(kModels + "bloom-6-heads-bf16", {.lora = {{"tests/goldens/lora/bloom-fused", 1}}});
}

TEST(ExportSafetensorsTest, FromMetasLayout) {
  const auto source =
      Checkpoint::Open("random:llama?hidden=64,layers=2,heads=8,kv_heads=4,ffn=192,vocab=160:fp16");
  const TemporaryDirectory dir;
  testing_files::WriteMetaLlama(**source, dir, {.shards = 2},
                                R"(, "rope_theta": 500000, "use_scaled_rope": true)");
  ExpectSameAfterwards(dir.path());
}

// BELLE's .pt, AutoGPTQ's and GPTQModel's directories in the order of activations or not, AWQ's.
TEST(ExportSafetensorsTest, WhatToolsQuantisedStaysAsItIs) {
  for (const std::string& name : GoldensThatBegin("gptq-")) ExpectSameAfterwards(PathOf(name));
  for (const std::string& name : GoldensThatBegin("awq-")) ExpectSameAfterwards(PathOf(name));
}

// Even the samples of the same model in other files are the same.
TEST(ExportSafetensorsTest, AQuantisedModelIsTheSameModel) {
  const TemporaryDirectory dir;
  const std::string path = PathOf("gptq-act-order-llama");
  ASSERT_TRUE(Export(path, {}, {.directory = dir.path() + "/out"}).ok());
  EXPECT_EQ(*(*Checkpoint::Open(dir.path() + "/out"))->ModelId(), *(*Checkpoint::Open(path))->ModelId());
}

Json ReadJsonFile(const std::string& path) {
  const auto text = ReadSmallFile(path, size_t{1} << 20);
  const auto json = text.ok() ? ParseJson(*text) : text.status();
  EXPECT_TRUE(json.ok()) << path << ": " << json.status();
  return json.ok() ? *json : Json();
}

TEST(ExportSafetensorsTest, SettingsOfFilesThatHaveNone) {
  const TemporaryDirectory dir;
  ASSERT_TRUE(Export(PathOf("gptq-belle-bloom-4bit"), {}, {.directory = dir.path()}).ok());
  const Json settings = ReadJsonFile(dir.path() + "/quantize_config.json");
  EXPECT_EQ(settings["bits"], 4);
  EXPECT_EQ(settings["group_size"], 32);
  EXPECT_EQ(settings["desc_act"], false);
  EXPECT_EQ(settings["checkpoint_format"], "gptq");
  EXPECT_EQ(ReadJsonFile(dir.path() + "/config.json")["quantization_config"], settings);
}

// A matrix of integers has no type of floats of its own; reading it in another order does not make it one.
TEST(ExportSafetensorsTest, TheTypeIsTheSourcesUntilItIsDequantised) {
  const std::string path = PathOf("gptq-act-order-llama");
  const TemporaryDirectory packed, whole;
  ASSERT_TRUE(Export(path, {}, {.directory = packed.path()}).ok());
  ASSERT_TRUE(Export(path, {}, {.directory = whole.path(), .dequantize = DType::kF32}).ok());
  EXPECT_EQ(ReadJsonFile(path + "/config.json")["torch_dtype"], "float16");
  EXPECT_EQ(ReadJsonFile(packed.path() + "/config.json")["torch_dtype"], "float16");
  EXPECT_EQ(ReadJsonFile(whole.path() + "/config.json")["torch_dtype"], "float32");
}

// GGUF stores the frequencies that Llama 3's scaling gives, config.json the scaling.
void ExpectSameConfig(ModelConfig copy, ModelConfig source) {
  if (copy.rope_scaling.has_value() && !source.rope_factors.empty()) {
    const std::vector<float> a = RopeInverseFrequencies(copy), b = RopeInverseFrequencies(source);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i] / b[i], 1, 1e-5);
    copy.rope_scaling.reset();
    source.rope_factors.clear();
  }
  EXPECT_EQ(copy, source);
}

// In the order in which the matrices are stored, whatever order reading puts them in.
void ExpectDequantized(const std::string& path) {
  SCOPED_TRACE(path);
  auto source = OpenContents(path);
  ASSERT_TRUE(source.ok()) << source.status();
  UndoInputOrders(source->tensors);
  const TemporaryDirectory dir;
  const absl::Status written = Export(path, {}, {.directory = dir.path(), .dequantize = DType::kF32});
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_FALSE(fs::exists(dir.path() + "/quantize_config.json"));
  const auto copy = Checkpoint::Open(dir.path());
  ASSERT_TRUE(copy.ok()) << copy.status();
  ExpectSameConfig((*copy)->config(), source->config);
  for (const TensorKey& key : (*copy)->Keys()) {
    const StoredTensor& tensor = source->tensors.at(key);
    std::vector<float> values(tensor.info.rows * tensor.info.cols);
    ASSERT_TRUE(ReadStored(tensor, {0, tensor.info.rows, 0, tensor.info.cols}, absl::MakeSpan(values)).ok());
    EXPECT_EQ(testing_files::WholeTensor(**copy, key).values, values) << Name(key);
    const WeightFormat format = tensor.info.format.format;
    EXPECT_EQ((*copy)->Find(key)->format.format, IsQuantized(format) ? WeightFormat::kF32 : format);
  }
}

TEST(ExportSafetensorsTest, DequantisedValuesAreThoseThatAreRead) {
  for (const char* beginning : {"gptq-", "awq-", "gg"}) {
    for (const std::string& name : GoldensThatBegin(beginning)) ExpectDequantized(PathOf(name));
  }
}

// Reading permutes what act-order quantised; what is written is not permuted.
TEST(ExportSafetensorsTest, DequantisedColumnsAreInTheOrderOfTheInputs) {
  const std::string path = PathOf("gptq-act-order-llama");
  const TemporaryDirectory dir;
  ASSERT_TRUE(Export(path, {}, {.directory = dir.path(), .dequantize = DType::kF32}).ok());
  const auto source = Checkpoint::Open(path), copy = Checkpoint::Open(dir.path());
  const TensorKey query{TensorRole::kQuery};
  const auto order = (*source)->Find(query)->input_order;
  ASSERT_NE(order, nullptr);
  const auto read = testing_files::WholeTensor(**source, query);
  const auto written = testing_files::WholeTensor(**copy, query);
  for (int64_t row = 0; row < read.rows; ++row) {
    for (int64_t col = 0; col < read.cols; ++col)
      ASSERT_EQ(read.values[row * read.cols + col], written.values[row * read.cols + (*order)[col]]);
  }
}

TEST(ExportSafetensorsTest, DequantisedToHalfIsRoundedOnce) {
  const TemporaryDirectory whole, half;
  const std::string path = PathOf("gguf-llama-k-wide");
  ASSERT_TRUE(Export(path, {}, {.directory = whole.path(), .dequantize = DType::kF32}).ok());
  ASSERT_TRUE(Export(path, {}, {.directory = half.path(), .dequantize = DType::kF16}).ok());
  const auto of_whole = Checkpoint::Open(whole.path()), of_half = Checkpoint::Open(half.path());
  const TensorKey query{TensorRole::kQuery};
  std::vector<float> expected = testing_files::WholeTensor(**of_whole, query).values;
  for (float& value : expected) value = F32FromF16(F16FromF32(value));
  EXPECT_EQ(testing_files::WholeTensor(**of_half, query).values, expected);
  EXPECT_EQ((*of_half)->Find(query)->format.format, WeightFormat::kF16);
}

TEST(ExportSafetensorsTest, NothingIsOverwrittenAndItCanBeStopped) {
  const std::string path = kModels + "llama-mha";
  const TemporaryDirectory dir;
  const absl::Status stopped =
      Export(path, {}, {.directory = dir.path() + "/a", .progress = [](int64_t, int64_t) { return false; }});
  EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(fs::exists(dir.path() + "/a/model.safetensors"));
  ASSERT_TRUE(Export(path, {}, {.directory = dir.path() + "/b"}).ok());
  EXPECT_EQ(Export(path, {}, {.directory = dir.path() + "/b"}).code(), absl::StatusCode::kAlreadyExists);
}

TEST(ExportSafetensorsTest, BlocksAreRefusedByTypeWithWhatToDo) {
  const TemporaryDirectory dir;
  const absl::Status refused = Export(PathOf("gguf-llama-mixed"), {}, {.directory = dir.path() + "/out"});
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--dequantize fp16"));
  EXPECT_FALSE(fs::exists(dir.path() + "/out"));
  EXPECT_EQ(Export("random:llama:int4", {}, {.directory = dir.path()}).code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace bellwether
