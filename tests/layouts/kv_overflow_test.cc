// Keys that fp16 cannot hold: the answer says so and what to do, instead of blaming the weights.

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "tests/layouts/local_cluster.h"

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kKeys[] = "model.layers.0.self_attn.k_proj.weight";

// A golden LLaMA of fp32 whose first keys are a million times as large.
void WriteLargeKeys(const testing_files::TemporaryDirectory& dir) {
  const std::string golden = GoldenPath("models/llama-mha");
  std::filesystem::copy_file(golden + "/config.json", dir.path() + "/config.json");
  std::ifstream in(golden + "/model.safetensors", std::ios::binary);
  std::string file((std::istreambuf_iterator<char>(in)), {});
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  const auto header = ParseJson(file.substr(sizeof(header_bytes), header_bytes));
  ASSERT_TRUE(header.ok()) << header.status();
  const Json& offsets = (*header)[kKeys]["data_offsets"];
  char* data = file.data() + sizeof(header_bytes) + header_bytes;
  for (int64_t at = offsets[0].get<int64_t>(); at < offsets[1].get<int64_t>(); at += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, data + at, sizeof(value));
    value *= 1e6f;
    std::memcpy(data + at, &value, sizeof(value));
  }
  dir.Write("model.safetensors", file);
}

// What an answer says is wrong, after a prompt of four tokens.
std::string ErrorWith(const Checkpoint& checkpoint, DType kv_type) {
  const auto layout = EvenLayout(checkpoint.config(), /*stages=*/1, /*ranks=*/1);
  const auto cluster = LocalCluster::Start(
      checkpoint, {.layout = *layout, .numeric = {.kernel_level = "portable", .kv_type = kv_type}});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const SequenceId sequence{1};
  Step step{.epoch = Epoch{1}, .id = StepId{1}};
  step.admissions.push_back({.sequence = sequence, .tokens = {3, 4, 5, 6}, .prompt_length = 4});
  StepEntry entry{.sequence = sequence, .position = 0, .count = 4};
  entry.sample = true;
  entry.new_blocks = {0};
  step.entries.push_back(entry);
  const auto result = (*cluster)->Run(step);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? result->outputs.at(0).error : "";
}

TEST(KvOverflowTest, AnOverflowOfTheFp16CacheIsCalledSo) {
  const testing_files::TemporaryDirectory dir;
  WriteLargeKeys(dir);
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(
      ErrorWith(**checkpoint, DType::kF16),
      AllOf(HasSubstr("a key or value overflows the fp16 KV cache"), HasSubstr("--kv-type bf16 or fp32")));
  EXPECT_EQ(ErrorWith(**checkpoint, DType::kBF16), "");
  EXPECT_EQ(ErrorWith(**checkpoint, DType::kF32), "");
}

TEST(KvOverflowTest, TheCaseOfAUser) {
  const std::string shared = "../shared/cases/22-kv-fp16-overflow/k1";
  if (!std::filesystem::exists(shared)) GTEST_SKIP() << shared << " is not there";
  const auto checkpoint = Checkpoint::Open(shared);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(ErrorWith(**checkpoint, DType::kF16), HasSubstr("overflows the fp16 KV cache"));
  EXPECT_EQ(ErrorWith(**checkpoint, DType::kBF16), "");
}

}  // namespace
}  // namespace bellwether
