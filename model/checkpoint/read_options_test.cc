#include "model/checkpoint/read_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "common/round_floats.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFp32[] = "tests/goldens/models/llama-mha";
constexpr char kFp16[] = "tests/goldens/models/llama-old-fp16";

std::unique_ptr<Checkpoint> Open(const std::string& path, std::optional<DType> dtype) {
  auto opened = Checkpoint::Open(path, {.dtype = dtype});
  EXPECT_TRUE(opened.ok()) << opened.status();
  return *std::move(opened);
}

std::vector<float> Values(const Checkpoint& checkpoint, const TensorKey& key) {
  const TensorInfo& info = *checkpoint.Find(key);
  std::vector<float> values(info.rows * info.cols);
  EXPECT_TRUE(checkpoint.ReadFloats(key, {0, info.rows, 0, info.cols}, absl::MakeSpan(values)).ok());
  return values;
}

TEST(ReadOptionsTest, FloatsAreRoundedToTheTypeThatIsAskedFor) {
  const auto stored = Open(kFp32, std::nullopt);
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const auto rounded = Open(kFp32, type);
    const WeightFormat format = type == DType::kF16 ? WeightFormat::kF16 : WeightFormat::kBF16;
    for (const TensorKey& key : stored->Keys()) {
      EXPECT_EQ(rounded->Find(key)->format.format, format);
      std::vector<float> expected = Values(*stored, key);
      EXPECT_TRUE(RoundFloats(format, absl::MakeSpan(expected)));
      EXPECT_EQ(Values(*rounded, key), expected) << Name(key);
    }
    EXPECT_EQ(rounded->StoredBytes(), stored->StoredBytes());
    EXPECT_NE(*rounded->ModelId(), *stored->ModelId());
  }
}

TEST(ReadOptionsTest, WhatIsStoredSoAlreadyIsTheSameModel) {
  EXPECT_EQ(*Open(kFp16, DType::kF16)->ModelId(), *Open(kFp16, std::nullopt)->ModelId());
  const auto wider = Open(kFp16, DType::kF32), stored = Open(kFp16, std::nullopt);
  EXPECT_NE(*wider->ModelId(), *stored->ModelId());
  const TensorKey key{TensorRole::kQuery, 1};
  EXPECT_EQ(wider->Find(key)->format.format, WeightFormat::kF32);
  EXPECT_EQ(Values(*wider, key), Values(*stored, key));
}

TEST(ReadOptionsTest, QuantisedWeightsStayAsTheyAre) {
  const auto stored = Open("random:llama:int4", std::nullopt), asked = Open("random:llama:int4", DType::kF16);
  const TensorKey key{TensorRole::kQuery, 1};
  EXPECT_EQ(asked->Find(key)->format, stored->Find(key)->format);
  EXPECT_EQ(Values(*asked, key), Values(*stored, key));
}

TEST(ReadOptionsTest, AValueThatTheTypeCannotHoldIsRefused) {
  const testing_files::TemporaryDirectory dir;
  std::filesystem::copy(kFp32, dir.path());
  auto bytes = ReadSmallFile(dir.path() + "/model.safetensors", 1 << 20);
  ASSERT_TRUE(bytes.ok());
  const float large = 70000;
  std::memcpy(bytes->data() + bytes->size() - sizeof(large), &large, sizeof(large));
  dir.Write("model.safetensors", *bytes);
  const auto checkpoint = Open(dir.path(), DType::kF16);
  absl::Status status;
  for (const TensorKey& key : checkpoint->Keys()) {
    const TensorInfo& info = *checkpoint->Find(key);
    std::vector<float> values(info.rows * info.cols);
    status.Update(checkpoint->ReadFloats(key, {0, info.rows, 0, info.cols}, absl::MakeSpan(values)));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors: tensor '"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds a value too large for fp16"));
}

TEST(ReadOptionsTest, ProgramsPassThemOn) {
  EXPECT_THAT(FlagsOf({}), IsEmpty());
  EXPECT_THAT(FlagsOf({.dtype = DType::kBF16}), ElementsAre("--dtype", "bf16"));
  EXPECT_THAT(FlagsOf({.gptq = {.bits = 4, .group = -1}}),
              ElementsAre("--gptq-bits", "4", "--gptq-group", "-1"));
  EXPECT_EQ(*ParseLoadDType("auto"), std::nullopt);
  EXPECT_EQ(*ParseLoadDType("fp16"), DType::kF16);
  EXPECT_EQ(ParseLoadDType("int8").status().message(), "dtype is \"int8\", allowed: auto, fp32, bf16, fp16");
}

TEST(ReadOptionsTest, BitsAndGroupsThatGptqHas) {
  EXPECT_EQ(*ParseGptqBits("3"), 3);
  EXPECT_EQ(*ParseGptqGroup("-1"), -1);
  EXPECT_EQ(*ParseGptqGroup("128"), 128);
  EXPECT_EQ(ParseGptqBits("5").status().message(), "gptq-bits is \"5\", allowed: 2, 3, 4, 8");
  EXPECT_THAT(std::string(ParseGptqGroup("0").status().message()), HasSubstr("gptq-group is \"0\""));
  EXPECT_FALSE(ParseGptqBits("").ok());
}

TEST(ReadOptionsTest, ADifferenceNamesTheFlag) {
  EXPECT_EQ(DifferenceOf({{"dtype", "fp16"}}, {{"dtype", "fp16"}}, "we"), "");
  EXPECT_EQ(DifferenceOf({{"dtype", "fp16"}}, {}, "we"), "with --dtype fp16, we without --dtype");
  EXPECT_EQ(DifferenceOf({{"dtype", "fp16"}}, {{"dtype", "bf16"}}, "we"),
            "with --dtype fp16, we with --dtype bf16");
}

}  // namespace
}  // namespace bellwether
