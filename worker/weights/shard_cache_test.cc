#include "worker/weights/shard_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "model/checkpoint/testing_files.h"
#include "worker/weights/testing_image.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;
using testing_image::BytesOf;

// Two whole blocks and a page.
constexpr int64_t kImageBytes = 2 * kLayerBlockBytes + kLayerPageBytes;

class ShardCacheTest : public ::testing::Test {
 protected:
  std::unique_ptr<ShardCache> Open(ShardCache::Options options = {}) {
    options.directory = directory_.path() + "/below/shards";
    auto cache = ShardCache::Open(std::move(options));
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  static std::shared_ptr<const LayerFile> Write(const ShardCache& cache, const std::string& key, int seed) {
    const AlignedBuffer image = testing_image::Make(kImageBytes, seed);
    auto file = cache.Write(DescribeImage(key, BytesOf(image), {{"layer 0 query weight, rows 0-7", 42}}),
                            BytesOf(image));
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }
  static absl::Status ReadAll(const LayerFile& file, AlignedBuffer& image) {
    absl::Status status;
    for (int64_t block = 0; block < file.blocks(); ++block)
      status.Update(file.ReadBlock(block, true, image.data()));
    return status;
  }
  static void ExpectHolds(const LayerFile& file, int seed) {
    AlignedBuffer image = *AlignedBuffer::Allocate(kImageBytes);
    const absl::Status status = ReadAll(file, image);
    ASSERT_TRUE(status.ok()) << status;
    const AlignedBuffer expected = testing_image::Make(kImageBytes, seed);
    EXPECT_TRUE(std::ranges::equal(BytesOf(image), BytesOf(expected)));
  }

  testing_files::TemporaryDirectory directory_;
};

TEST_F(ShardCacheTest, WhatIsWrittenIsFoundByItsKey) {
  const auto cache = Open();
  EXPECT_EQ(fs::status(cache->directory()).permissions(), fs::perms::owner_all);
  EXPECT_EQ(cache->Find("layer 3 of a model"), nullptr);
  Write(*cache, "layer 3 of a model", 1);
  Write(*cache, "layer 4 of a model", 2);
  const auto file = Open()->Find("layer 3 of a model");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->info().key, "layer 3 of a model");
  ASSERT_EQ(file->info().hashes.size(), 1u);
  EXPECT_EQ(file->info().hashes[0].what, "layer 0 query weight, rows 0-7");
  EXPECT_EQ(file->info().hashes[0].hash, 42u);
  ExpectHolds(*file, 1);
}

TEST_F(ShardCacheTest, AFileIsReadOnAfterItsNameHasGone) {
  const auto cache = Open();
  const auto file = Write(*cache, "a", 1);
  fs::remove(file->path());
  ExpectHolds(*file, 1);
}

TEST_F(ShardCacheTest, TwoWhoWriteTheSameBothHaveIt) {
  const auto cache = Open();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { ExpectHolds(*Write(*cache, "a", 1), 1); });
  for (std::thread& thread : threads) thread.join();
  ExpectHolds(*cache->Find("a"), 1);
  EXPECT_EQ(ListShardCache(cache->directory())->size(), 1u);
  EXPECT_EQ(std::distance(fs::directory_iterator(cache->directory()), {}), 1);
}

// A byte anywhere: in what describes the image it is seen at once, in the image when its block is read.
TEST_F(ShardCacheTest, DamageIsSeenAndTheFileTakenAway) {
  const auto cache = Open();
  const std::string path = Write(*cache, "a", 1)->path();
  const auto size = static_cast<int64_t>(fs::file_size(path));
  for (const int64_t at : {int64_t{0}, int64_t{25}, int64_t{100}, size - kImageBytes, size - 1}) {
    SCOPED_TRACE(at);
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(at);
      const char changed = static_cast<char>(file.get() ^ 1);
      file.seekp(at);
      file.put(changed);
    }
    if (const auto file = cache->Find("a"); file != nullptr) {
      AlignedBuffer image = *AlignedBuffer::Allocate(kImageBytes);
      const absl::Status status = ReadAll(*file, image);
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_NE(std::string(status.message()).find(path), std::string::npos) << status;
      file->Discard();
      EXPECT_TRUE(file->discarded());
    }
    EXPECT_FALSE(fs::exists(path));
    EXPECT_EQ(cache->Find("a"), nullptr);
    Write(*cache, "a", 1);
  }
}

TEST_F(ShardCacheTest, AFileThatWasCutOffIsDamaged) {
  const auto cache = Open();
  const std::string path = Write(*cache, "a", 1)->path();
  for (const int64_t size :
       {static_cast<int64_t>(fs::file_size(path)) - kLayerPageBytes, int64_t{60}, int64_t{0}}) {
    fs::resize_file(path, size);
    EXPECT_EQ(cache->Find("a"), nullptr);
    EXPECT_FALSE(fs::exists(path));
    Write(*cache, "a", 1);
  }
}

TEST_F(ShardCacheTest, ANameThatHoldsSomethingElseIsNotBelieved) {
  const auto cache = Open();
  const std::string a = Write(*cache, "a", 1)->path(), b = Write(*cache, "b", 2)->path();
  fs::rename(a, b);
  EXPECT_EQ(cache->Find("b"), nullptr);
}

TEST_F(ShardCacheTest, ErrorsOfTheDriveNameFileAndPlace) {
  const auto broken = Open({.read_at = [](int, void*, size_t, off_t) -> ssize_t {
    errno = EIO;
    return -1;
  }});
  const auto file = Write(*broken, "a", 1);
  const absl::Status status = file->ReadBlock(1, true, nullptr);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(std::string(status.message()).find(file->path()), std::string::npos) << status;
  EXPECT_NE(std::string(status.message()).find("Input/output error"), std::string::npos) << status;
  // A page at a time is slow, not wrong.
  const auto slow = Open({.read_at = [](int fd, void* to, size_t bytes, off_t offset) {
    return pread(fd, to, std::min<size_t>(bytes, kLayerPageBytes), offset);
  }});
  ExpectHolds(*slow->Find("a"), 1);
}

TEST_F(ShardCacheTest, AFullDriveIsLeftAlone) {
  const auto cache = Open({.check_room = [](int64_t) { return absl::ResourceExhaustedError("full"); }});
  const AlignedBuffer image = testing_image::Make(kImageBytes, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(
      cache->Write(DescribeImage("a", BytesOf(image), {}), BytesOf(image)).status()));
  EXPECT_EQ(std::distance(fs::directory_iterator(cache->directory()), {}), 0);
}

// Nobody takes it for a layer, and the next one clears it up.
// Who ends does not wait until hundreds of megabytes are on a slow drive.
TEST_F(ShardCacheTest, AWriteThatIsNoLongerWantedLeavesNothing) {
  const auto cache = Open();
  const AlignedBuffer image = testing_image::Make(kImageBytes, 1);
  for (const int pieces : {0, 1}) {
    int asked = 0;
    const auto file = cache->Write(DescribeImage("key", BytesOf(image), {}), BytesOf(image),
                                   [&] { return asked++ == pieces; });
    EXPECT_TRUE(absl::IsCancelled(file.status())) << file.status();
    EXPECT_TRUE(fs::is_empty(cache->directory())) << pieces;
  }
}

TEST_F(ShardCacheTest, WhatAKilledWriterHasLeftIsTakenAway) {
  const auto cache = Open();
  std::ofstream(cache->directory() + "/x.layer.1.partial") << "begun";
  const std::string unnamed = cache->directory() + "/x.layer.2";
  std::ofstream(unnamed) << "complete, but not named yet";
  fs::last_write_time(unnamed, fs::file_time_type::clock::now() - std::chrono::hours(2));
  EXPECT_TRUE(ListShardCache(cache->directory())->empty());
  Open();
  EXPECT_EQ(std::distance(fs::directory_iterator(cache->directory()), {}), 0);
}

// What the directory is called once decided on the files in it.
TEST_F(ShardCacheTest, OldLayersStayWhateverTheDirectoryIsCalled) {
  const std::string directory = directory_.path() + "/my.layer.cache";
  const auto file = Write(**ShardCache::Open({.directory = directory}), "a", 1);
  fs::last_write_time(file->path(), fs::file_time_type::clock::now() - std::chrono::hours(2));
  const auto again = ShardCache::Open({.directory = directory});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_NE((*again)->Find("a"), nullptr);
}

TEST_F(ShardCacheTest, TheLeastRecentlyUsedGoFirst) {
  const auto cache = Open();
  const auto now = fs::file_time_type::clock::now();
  for (int i = 0; i < 3; ++i) {
    const auto file = Write(*cache, std::string(1, static_cast<char>('a' + i)), i);
    fs::last_write_time(file->path(), now - std::chrono::hours(10 - i));
  }
  EXPECT_NE(cache->Find("a"), nullptr);  // now it is the last that was used
  const auto all = ListShardCache(cache->directory());
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ((*all)[0].key, "b");
  const int64_t bytes = (*all)[0].bytes;
  EXPECT_GT(bytes, kImageBytes);
  EXPECT_EQ(PruneShardCache(cache->directory(), 3 * bytes)->size(), 0u);
  EXPECT_EQ(PruneShardCache(cache->directory(), bytes)->size(), 2u);
  EXPECT_EQ(cache->Find("b"), nullptr);
  EXPECT_NE(cache->Find("a"), nullptr);
  EXPECT_EQ(PruneShardCache(cache->directory(), 0)->size(), 1u);
  EXPECT_TRUE(ListShardCache(cache->directory() + "/nowhere")->empty());
}

TEST_F(ShardCacheTest, ADirectoryThatCannotBeMadeIsNamed) {
  std::ofstream(directory_.path() + "/file") << "x";
  const auto cache = ShardCache::Open({.directory = directory_.path() + "/file/shards"});
  ASSERT_FALSE(cache.ok());
  EXPECT_NE(std::string(cache.status().message()).find("/file/shards"), std::string::npos) << cache.status();
}

// -- What a program was told

class FindShardCacheTest : public ::testing::Test {
 protected:
  FindShardCacheTest() {
    for (const char* name : {"XDG_CACHE_HOME", "HOME"}) {
      const char* const value = getenv(name);
      before_.emplace_back(name, value == nullptr ? std::nullopt : std::optional<std::string>(value));
      unsetenv(name);
    }
  }
  ~FindShardCacheTest() override {
    for (const auto& [name, value] : before_)
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  static std::string DirectoryOf(const std::string& option) {
    const auto cache = FindShardCache(option);
    if (!cache.ok()) return cache.status().ToString();
    return *cache == nullptr ? "none" : (*cache)->directory();
  }

  testing_files::TemporaryDirectory directory_;

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> before_;
};

TEST_F(FindShardCacheTest, AutoIsBelowTheUsersCacheAndMakesNothing) {
  EXPECT_EQ(DirectoryOf("auto"), "none") << "there is no home";
  setenv("HOME", directory_.path().c_str(), 1);
  EXPECT_EQ(DirectoryOf("auto"), directory_.path() + "/.cache/bellwether/shards");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(DirectoryOf("auto"), directory_.path() + "/.cache/bellwether/shards");
  setenv("XDG_CACHE_HOME", (directory_.path() + "/own").c_str(), 1);
  EXPECT_EQ(DirectoryOf("auto"), directory_.path() + "/own/bellwether/shards");
  EXPECT_TRUE(fs::is_empty(directory_.path())) << "before it writes";
}

TEST_F(FindShardCacheTest, OffIsNone) {
  setenv("HOME", directory_.path().c_str(), 1);
  EXPECT_EQ(DirectoryOf("off"), "none");
}

TEST_F(FindShardCacheTest, ADirectoryIsMadeForThisUserAlone) {
  const std::string path = directory_.path() + "/a/shards";
  EXPECT_EQ(DirectoryOf(path), path);
  struct stat made = {};
  ASSERT_EQ(stat(path.c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 0777, 0700u);
  directory_.Write("file", "x");
  const std::string refused = DirectoryOf(directory_.path() + "/file/shards");
  EXPECT_NE(refused.find(directory_.path() + "/file/shards"), std::string::npos) << refused;
}

}  // namespace
}  // namespace bellwether
