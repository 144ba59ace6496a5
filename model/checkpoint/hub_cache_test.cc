#include "model/checkpoint/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

Environment Of(const std::map<std::string, std::string>& variables) {
  return [variables](const std::string& name) {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  };
}

TEST(HubCacheTest, TheVariablesOfHuggingFacesOwnPrograms) {
  std::map<std::string, std::string> variables;
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "");
  variables["HOME"] = "/home/me";
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "/home/me/.cache/huggingface/hub");
  variables["XDG_CACHE_HOME"] = "/xdg";
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "/xdg/huggingface/hub");
  variables["HF_HOME"] = "~/hf";
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "/home/me/hf/hub");
  variables["HUGGINGFACE_HUB_CACHE"] = "/old";
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "/old");
  variables["HF_HUB_CACHE"] = "/new";
  EXPECT_EQ(HubCacheDirectory(Of(variables)), "/new");
}

// models--org--tiny with two snapshots of links to blobs, as the hub's client lays them out.
class HubCacheFilesTest : public ::testing::Test {
 protected:
  HubCacheFilesTest() {
    AddSnapshot("aaa", "tests/goldens/models/llama-mha");
    AddSnapshot("bbb", "tests/goldens/models/llama-biased");
    const auto now = fs::file_time_type::clock::now();
    fs::last_write_time(Repository() + "/snapshots/aaa", now);
    fs::last_write_time(Repository() + "/snapshots/bbb", now - std::chrono::hours(1));
  }
  std::string Repository() const { return cache_.path() + "/models--org--tiny"; }
  void AddSnapshot(const std::string& commit, const std::string& source) {
    fs::create_directories(Repository() + "/blobs");
    fs::create_directories(Repository() + "/snapshots/" + commit);
    for (const auto& entry : fs::directory_iterator(source)) {
      const std::string name = entry.path().filename(), blob = commit + name;
      fs::copy_file(entry.path(), Repository() + "/blobs/" + blob);
      fs::create_symlink("../../blobs/" + blob, absl::StrCat(Repository(), "/snapshots/", commit, "/", name));
    }
  }
  void SetRef(const std::string& name, const std::string& commit) {
    fs::create_directories(fs::path(Repository() + "/refs/" + name).parent_path());
    std::ofstream(Repository() + "/refs/" + name) << commit;
  }
  std::string Found(const std::string& model) {
    const auto found = ResolveModel(model, Of({{"HF_HUB_CACHE", cache_.path()}}));
    return found.ok() ? fs::path(*found).filename().string() : std::string(found.status().message());
  }

  TemporaryDirectory cache_;
};

TEST_F(HubCacheFilesTest, TheRevisionThatIsMeant) {
  EXPECT_EQ(Found("org/tiny"), "aaa") << "the newest";
  SetRef("main", "bbb");
  EXPECT_EQ(Found("org/tiny"), "bbb");
  SetRef("refs/pr/7", "aaa\n");
  EXPECT_EQ(Found("org/tiny@refs/pr/7"), "aaa");
  EXPECT_EQ(Found("org/tiny@aaa"), "aaa");
  EXPECT_THAT(Found("org/tiny@v2"), HasSubstr("has no snapshot of v2"));
  SetRef("main", "ccc");
  EXPECT_THAT(Found("org/tiny"), HasSubstr("names the snapshot \"ccc\", which is not there"));
  SetRef("main", "../../../elsewhere");
  EXPECT_THAT(Found("org/tiny"), HasSubstr("which is not there"));
}

TEST_F(HubCacheFilesTest, ASnapshotOpensThroughItsLinks) {
  const auto found = ResolveModel("org/tiny", Of({{"HF_HUB_CACHE", cache_.path()}}));
  ASSERT_TRUE(found.ok()) << found.status();
  const auto opened = Checkpoint::Open(*found);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(*(*opened)->ModelId(), *(*Checkpoint::Open("tests/goldens/models/llama-mha"))->ModelId());
}

TEST_F(HubCacheFilesTest, AnIncompleteOneIsNamedFileByFile) {
  fs::remove(Repository() + "/blobs/aaamodel.safetensors");
  fs::remove(Repository() + "/blobs/aaaconfig.json");
  EXPECT_THAT(Found("org/tiny@aaa"), HasSubstr("the blobs are missing of config.json, model.safetensors"));
}

TEST_F(HubCacheFilesTest, OtherNamesAreNoneOfTheHub) {
  EXPECT_THAT(Found("org/other"), HasSubstr("no model at org/other, nor in the hub's cache"));
  EXPECT_THAT(
      std::string(ResolveModel("org/other", Of({})).status().message()),
      HasSubstr("nor is there a hub's cache to look in: none of HF_HUB_CACHE, HF_HOME and HOME is set"));
  for (const std::string& name : {std::string("tiny"), std::string("/org/tiny"), std::string("../org/tiny"),
                                  std::string("org/tiny/more"), std::string("../tiny"),
                                  std::string("org/tiny@"), std::string("org/tiny@a/../b")})
    EXPECT_THAT(Found(name), HasSubstr("no model at")) << name;
  EXPECT_EQ(Found("tests/goldens/models/llama-mha"), "llama-mha") << "a path that is there wins";
  EXPECT_EQ(Found("random:llama"), "random:llama");
}

}  // namespace
}  // namespace bellwether
