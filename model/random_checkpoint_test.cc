#include "model/random_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace bellwether {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Checkpoint> Open(const std::string& name) {
  auto checkpoint = Checkpoint::Open(name);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

std::vector<float> Read(const Checkpoint& checkpoint, const TensorKey& key, const TensorWindow& window) {
  std::vector<float> out((window.row_end - window.row_begin) * (window.col_end - window.col_begin));
  EXPECT_TRUE(checkpoint.ReadFloats(key, window, absl::MakeSpan(out)).ok());
  return out;
}

TEST(RandomCheckpointTest, ValuesDoNotDependOnTheWindow) {
  for (const char* format : {"fp32", "bf16", "fp16", "int8", "int4"}) {
    const auto checkpoint = Open(absl::StrCat("random:llama?hidden=100,heads=5:", format));
    const TensorKey key = {TensorRole::kUp, 1};
    const TensorInfo& info = *checkpoint->Find(key);
    EXPECT_EQ(Name(info.format.format), format);
    const std::vector<float> whole = Read(*checkpoint, key, {0, info.rows, 0, info.cols});
    for (const TensorWindow& window :
         {TensorWindow{3, 9, 5, 77}, TensorWindow{0, 1, 33, 34}, TensorWindow{7, 8, 31, 100}}) {
      const std::vector<float> part = Read(*checkpoint, key, window);
      size_t at = 0;
      for (int64_t row = window.row_begin; row < window.row_end; ++row) {
        for (int64_t col = window.col_begin; col < window.col_end; ++col) {
          ASSERT_EQ(part[at++], whole[row * info.cols + col]) << format;
        }
      }
    }
    EXPECT_EQ(Read(*Open(checkpoint->path()), key, {0, 2, 0, 100}), Read(*checkpoint, key, {0, 2, 0, 100}));
  }
}

TEST(RandomCheckpointTest, ValuesAreExactInTheirFormatAndOfTheRightSize) {
  for (const char* format : {"fp32", "bf16", "fp16", "int8", "int4"}) {
    const auto checkpoint = Open(absl::StrCat("random:llama?hidden=256,heads=4:", format));
    const std::vector<float> values = Read(*checkpoint, {TensorRole::kUp, 0}, {0, 172, 0, 256});
    double squares = 0;
    for (float value : values) {
      squares += double{value} * value;
      if (std::string(format) == "bf16") {
        EXPECT_EQ(F32FromBF16(BF16FromF32(value)), value);
      } else if (std::string(format) == "fp16") {
        EXPECT_EQ(F32FromF16(F16FromF32(value)), value);
      }
    }
    // A row times a vector of values of order 1 is of order 1.
    EXPECT_GT(squares / 172, 0.2) << format;
    EXPECT_LT(squares / 172, 2.5) << format;
    for (float value : Read(*checkpoint, {TensorRole::kFinalNorm}, {0, 1, 0, 256}))
      EXPECT_NEAR(value, 1, 0.126);
  }
}

TEST(RandomCheckpointTest, StoredNumbersAgreeWithTheFloats) {
  for (const char* format : {"int8", "int4"}) {
    const auto checkpoint = Open(absl::StrCat("random:bloom?hidden=100,heads=5:", format));
    const TensorKey key = {TensorRole::kEmbedding};
    auto quantized = checkpoint->ReadQuantized(key, {5, 6, 32, 100});
    ASSERT_TRUE(quantized.ok()) << quantized.status();
    ASSERT_EQ(quantized->scales.size(), 3u);
    const std::vector<float> floats = Read(*checkpoint, key, {5, 6, 32, 100});
    for (size_t i = 0; i < floats.size(); ++i) {
      EXPECT_EQ(floats[i], quantized->scales[i / 32] * static_cast<float>(quantized->q[i]));
    }
    for (float scale : quantized->scales) EXPECT_EQ(F32FromF16(F16FromF32(scale)), scale);
  }
}

TEST(RandomCheckpointTest, TensorsSeedsAndShapesDiffer) {
  const auto one = Open("random:llama:fp32"), two = Open("random:llama:fp32:1");
  const TensorWindow row = {0, 1, 0, 64};
  EXPECT_NE(Read(*one, {TensorRole::kQuery, 0}, row), Read(*two, {TensorRole::kQuery, 0}, row));
  EXPECT_NE(Read(*one, {TensorRole::kQuery, 0}, row), Read(*one, {TensorRole::kKey, 0}, row));
  EXPECT_NE(Read(*one, {TensorRole::kQuery, 0}, row), Read(*one, {TensorRole::kQuery, 1}, row));
  EXPECT_NE(*one->ModelId(), *two->ModelId());
  EXPECT_EQ(*one->ModelId(), *Open("random:llama:fp32:0")->ModelId());
  EXPECT_NE(*one->ModelId(), *Open("random:llama:bf16")->ModelId());
  EXPECT_TRUE(absl::IsNotFound(one->LoadTokenizer().status()));
  EXPECT_EQ(one->container(), "random");
  one->DropPages({TensorRole::kQuery, 0});
}

TEST(RandomCheckpointTest, MistakesAreNamed) {
  for (const char* name :
       {"random:llama:int3", "random:llama:int4:x", "random:llama:int4:1:2", "random:llama:"}) {
    EXPECT_THAT(Checkpoint::Open(name).status().message(), HasSubstr("random:SHAPE[:FORMAT[:SEED]]")) << name;
  }
  EXPECT_THAT(Checkpoint::Open("random:gpt").status().message(), HasSubstr("no shape 'gpt'"));
}

}  // namespace
}  // namespace bellwether
