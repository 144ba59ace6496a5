#include "model/checkpoint/export_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"
#include "model/checkpoint/testing_meta.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

const std::string kModels = "tests/goldens/models/";

// Writes a checkpoint, reads it back, and compares all that is in it.
void ExpectSameAfterwards(const std::string& path, ReadOptions read = {},
                          int64_t shard_bytes = int64_t{1} << 40) {
  const auto source = Checkpoint::Open(path, read);
  ASSERT_TRUE(source.ok()) << source.status();
  const TemporaryDirectory dir;
  const std::string out = dir.path() + "/out";
  const absl::Status written =
      ExportSafetensors(**source, {.directory = out, .read = read, .shard_bytes = shard_bytes});
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(fs::exists(out + "/model.safetensors.index.json"), shard_bytes < 1 << 20);
  const auto copy = Checkpoint::Open(out);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->container(), "safetensors");
  EXPECT_EQ((*copy)->config(), (*source)->config());
  ASSERT_EQ((*copy)->Keys(), (*source)->Keys());
  for (const TensorKey& key : (*source)->Keys()) {
    EXPECT_EQ((*copy)->Find(key)->format, (*source)->Find(key)->format) << Name(key);
    EXPECT_EQ(testing_files::WholeTensor(**copy, key).values,
              testing_files::WholeTensor(**source, key).values)
        << Name(key);
  }
}

TEST(ExportSafetensorsTest, EveryTensorKeepsItsTypeAndBits) {
  for (const std::string name :
       {"llama-mha", "llama-gqa-sharded-bf16", "llama-mqa-tied", "llama-old-fp16", "llama-biased",
        "llama-rope-v5-bf16", "bloom-5-heads-aliases", "bloom-6-heads-bf16"})
    ExpectSameAfterwards(kModels + name);
}

TEST(ExportSafetensorsTest, InSeveralFiles) {
  ExpectSameAfterwards(kModels + "llama-mha", {}, /*shard_bytes=*/5000);
  ExpectSameAfterwards(kModels + "bloom-4-heads", {}, /*shard_bytes=*/1);
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

TEST(ExportSafetensorsTest, NothingIsOverwrittenAndItCanBeStopped) {
  const auto source = Checkpoint::Open(kModels + "llama-mha");
  const TemporaryDirectory dir;
  const absl::Status stopped = ExportSafetensors(
      **source, {.directory = dir.path() + "/a", .progress = [](int64_t, int64_t) { return false; }});
  EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(fs::exists(dir.path() + "/a/model.safetensors"));
  ASSERT_TRUE(ExportSafetensors(**source, {.directory = dir.path() + "/b"}).ok());
  EXPECT_EQ(ExportSafetensors(**source, {.directory = dir.path() + "/b"}).code(),
            absl::StatusCode::kAlreadyExists);
}

TEST(ExportSafetensorsTest, QuantisedModelsAreRefused) {
  const TemporaryDirectory dir;
  const auto gptq = Checkpoint::Open("random:llama:int4");
  EXPECT_EQ(ExportSafetensors(**gptq, {.directory = dir.path()}).code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace bellwether
