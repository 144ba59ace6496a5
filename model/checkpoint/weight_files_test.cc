#include "model/checkpoint/weight_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::TemporaryDirectory;

// Of a directory with files of these names.
absl::StatusOr<WeightFiles> Find(std::initializer_list<const char*> names,
                                 const std::string& index = R"({"weight_map": {}})") {
  TemporaryDirectory dir;
  for (const std::string name : names) dir.Write(name, name.ends_with(".json") ? index : "x");
  return FindWeightFiles(dir.path());
}

std::string Refusal(std::initializer_list<const char*> names,
                    const std::string& index = R"({"weight_map": {}})") {
  return std::string(Find(names, index).status().message());
}

std::vector<std::string> Chosen(std::initializer_list<const char*> names,
                                const std::string& index = R"({"weight_map": {}})") {
  const absl::StatusOr<WeightFiles> files = Find(names, index);
  EXPECT_TRUE(files.ok()) << files.status();
  return files.ok() ? files->chosen : std::vector<std::string>();
}

TEST(WeightFilesTest, TheSingleFileWinsOverAnIndexAsInTransformers) {
  const auto files = Find({"model.safetensors", "model.safetensors.index.json",
                           "model-00001-of-00002.safetensors", "pytorch_model.bin", "README.md"});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->chosen, ElementsAre("model.safetensors"));
  EXPECT_THAT(files->passed_over, ElementsAre("model-00001-of-00002.safetensors", "pytorch_model.bin"));
}

TEST(WeightFilesTest, AnIndexNamesTheFiles) {
  const std::string index =
      R"({"weight_map": {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}})";
  EXPECT_THAT(
      Chosen({"model.safetensors.index.json", "one.safetensors", "two.safetensors", "x.safetensors"}, index),
      ElementsAre("one.safetensors", "two.safetensors"));
  EXPECT_THAT(Refusal({"model.safetensors.index.json", "one.safetensors"}, index),
              HasSubstr("names \"two.safetensors\", which is not there"));
  EXPECT_THAT(Refusal({"model.safetensors.index.json"}, R"({"weight_map": {"a": "../x.safetensors"}})"),
              HasSubstr("is not a file of this directory"));
  EXPECT_THAT(Refusal({"model.safetensors.index.json"}), HasSubstr("an empty 'weight_map'"));
  EXPECT_THAT(Refusal({"model.safetensors.index.json"}, "{}"), HasSubstr("no 'weight_map'"));
}

TEST(WeightFilesTest, AllFilesThatAnIndexMissesAreNamed) {
  std::string map;
  for (int i = 1; i <= 20; ++i)
    absl::StrAppend(&map, i > 1 ? "," : "", "\"t", i, "\": \"model-", i, "-of-20.safetensors\"");
  const std::string index = absl::StrCat("{\"weight_map\": {", map, "}}");
  const std::string all = Refusal({"model.safetensors.index.json", "model-1-of-20.safetensors"}, index);
  EXPECT_THAT(all, AllOf(HasSubstr("names \"model-10-of-20.safetensors\", \"model-11-of-20.safetensors\", "),
                         HasSubstr(" and 3 more, which are not there; if other weights are meant")));
  // In the hub's cache it is known what happened.
  const TemporaryDirectory cache;
  const std::string snapshot = cache.path() + "/models--a--b/snapshots/0f";
  std::filesystem::create_directories(snapshot);
  std::ofstream(snapshot + "/model.safetensors.index.json") << R"({"weight_map": {"a": "x", "b": "y"}})";
  EXPECT_THAT(std::string(FindWeightFiles(snapshot).status().message()),
              HasSubstr("names \"x\", \"y\", which are not there; the download of this snapshot is not"));
}

TEST(WeightFilesTest, AnIndexOfTooManyTensorsIsRefused) {
  std::string map = "\"t\": \"x\"";
  for (int i = 0; i < 1 << 17; ++i) absl::StrAppend(&map, ",\"", i, "\":\"x\"");
  EXPECT_THAT(Refusal({"model.safetensors.index.json"}, absl::StrCat("{\"weight_map\": {", map, "}}")),
              HasSubstr("more than 131072 tensors"));
}

// Mistral's releases hold their own format beside the shards of transformers.
TEST(WeightFilesTest, NumberedShardsWinOverFilesWithoutANumber) {
  const auto files = Find({"consolidated.safetensors", "model-00001-of-00002.safetensors",
                           "model-00002-of-00002.safetensors", "adapter_model.safetensors"});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->chosen,
              ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"));
  EXPECT_THAT(files->passed_over, ElementsAre("adapter_model.safetensors", "consolidated.safetensors"));
}

TEST(WeightFilesTest, OfSeveralSetsTheCompleteOneCalledModelWins) {
  EXPECT_THAT(Chosen({"a-1-of-1.safetensors", "model-1-of-2.safetensors", "model-2-of-2.safetensors"}),
              ElementsAre("model-1-of-2.safetensors", "model-2-of-2.safetensors"));
  // What a repeated download left behind is no set.
  EXPECT_THAT(Chosen({"model-00001-of-00003.safetensors", "model-00001-of-00001.safetensors"}),
              ElementsAre("model-00001-of-00001.safetensors"));
  EXPECT_THAT(Refusal({"a-1-of-1.safetensors", "b-1-of-1.safetensors"}),
              HasSubstr("holds both a-*-of-1.safetensors and b-*-of-1.safetensors"));
  EXPECT_THAT(
      Refusal({"model-1-of-1.safetensors", "model-01-of-02.safetensors", "model-02-of-02.safetensors"}),
      HasSubstr("holds both"));
}

TEST(WeightFilesTest, AMissingShardIsNamed) {
  const absl::Status status =
      Find({"model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"}).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("number 2 of model-*-of-3.safetensors is missing"));
}

TEST(WeightFilesTest, NumbersThatMakeNoSenseAreNames) {
  EXPECT_THAT(Chosen({"model-0-of-1.safetensors", "model-9-of-1.safetensors", "m-of-2.safetensors",
                      "n-99999999999999999999999-of-1.safetensors"}),
              ElementsAre("m-of-2.safetensors", "model-0-of-1.safetensors", "model-9-of-1.safetensors",
                          "n-99999999999999999999999-of-1.safetensors"));
}

TEST(WeightFilesTest, TorchFilesByTheSameRulesAfterSafetensors) {
  EXPECT_THAT(Chosen({"pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin"}),
              ElementsAre("pytorch_model.bin"));
  EXPECT_THAT(Chosen({"pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "model.safetensors"}),
              ElementsAre("model.safetensors"));
  // BiLLa's shards, which are numbered without zeros and have an index in some copies only.
  EXPECT_THAT(Chosen({"pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "optimizer.pt"}),
              ElementsAre("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"));
  EXPECT_THAT(Chosen({"pytorch_model.bin.index.json", "b.bin", "c.bin"}, R"({"weight_map": {"a": "b.bin"}})"),
              ElementsAre("b.bin"));
  EXPECT_THAT(Chosen({"belle.pt", "training_args.bin", "adapter_model.bin", "rng_state_0.pth"}),
              ElementsAre("belle.pt"));
  EXPECT_THAT(Refusal({"a.bin", "b.pt"}), HasSubstr("holds both \"a.bin\" and \"b.pt\": give the path"));
  EXPECT_THAT(Refusal({"training_args.bin"}), HasSubstr("no weights"));
}

// macOS puts a file of attributes beside each of an archive, with the same suffix.
TEST(WeightFilesTest, HiddenFilesAreNone) {
  const auto files = Find({"._model-1-of-1.safetensors", "._x.safetensors", "model-1-of-1.safetensors"});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->chosen, ElementsAre("model-1-of-1.safetensors"));
  EXPECT_THAT(files->passed_over, IsEmpty());
}

TEST(WeightFilesTest, OtherContainersAreNamedWithWhatToDo) {
  EXPECT_THAT(
      Refusal({"consolidated.00.pth", "params.json"}),
      HasSubstr("holds \"consolidated.00.pth\", Meta's LLaMA weights: they are read with params.json"));
  EXPECT_THAT(Refusal({"config.json"}), HasSubstr("no weights"));
  EXPECT_THAT(Refusal({"adapter_model.safetensors"}), HasSubstr("no weights"));
}

TEST(FileMappingTest, AGitLfsPointerIsCalledSo) {
  TemporaryDirectory dir;
  const std::string path =
      dir.Write("model.safetensors",
                "version https://git-lfs.github.com/spec/v1\n"
                "oid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\n"
                "size 12345\n");
  EXPECT_THAT(std::string(FileMapping::Open(path).status().message()),
              HasSubstr("model.safetensors is a Git LFS pointer: fetch the real file"));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadSmallFile(path, 1 << 20).status()));
  EXPECT_TRUE(FileMapping::Open(dir.Write("text", "version 1 of a text about git-lfs")).ok());
}

}  // namespace
}  // namespace bellwether
