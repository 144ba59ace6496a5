#include "worker/model_source.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr char kRoot[] = "tests/goldens/models";
constexpr char kModel[] = "tests/goldens/models/llama-mha";

TEST(ModelSource, AModelIsFoundByItsIdAlone) {
  ModelSource source(kModel, "");
  const absl::StatusOr<std::string> id = source.ModelId();
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(id->size(), 64u);
  ASSERT_TRUE(source.Find(*id).ok());
  EXPECT_EQ((*source.Find(*id))->path(), kModel);
  const absl::Status other = source.Find("abc").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("abc"));
  EXPECT_THAT(std::string(other.message()), HasSubstr(*id));
}

TEST(ModelSource, ARootIsSearched) {
  const std::string id = *ModelSource(kModel, "").ModelId();
  ModelSource source("", kRoot);
  EXPECT_EQ(*source.ModelId(), "");
  const absl::StatusOr<const Checkpoint*> found = source.Find(id);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)->path(), kModel);
  EXPECT_EQ(source.Find("abc").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ModelSource("", "/nowhere").Find(id).status().code(), absl::StatusCode::kNotFound);
}

TEST(ModelSource, OptionsMakeAnotherModel) {
  const std::string id = *ModelSource(kModel, "").ModelId();
  ModelSource rounded(kModel, "", {.dtype = DType::kF16});
  EXPECT_NE(*rounded.ModelId(), id);
  EXPECT_EQ(*rounded.Reading(), (ReadingText{{"dtype", "fp16"}}));
  ModelSource root("", kRoot, {.dtype = DType::kF16});
  EXPECT_TRUE(root.Find(*rounded.ModelId()).ok());
  EXPECT_THAT(std::string(root.Find(id).status().message()), HasSubstr("read with --dtype fp16, has the id"));
}

TEST(ModelSource, WhatCannotBeOpenedIsSaid) {
  ModelSource source("/nowhere", "");
  EXPECT_FALSE(source.ModelId().ok());
  EXPECT_EQ(source.ModelId().status(), source.Find("abc").status());
}

}  // namespace
}  // namespace bellwether
